"""Kinds of conditions that a network is built for."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import equinox as eqx


class AbstractKind(eqx.Module):
    """Base class of what a condition is: a class, a vector, an image or a sequence.

    ```python
    net = nn.DiT(
        (1, 8, 8),
        depth=1,
        conditions={
            "digit": nn.ClassCondition(10),
            "low": nn.ImageCondition(1),
            "meta": nn.VectorCondition(3, missing=True),
        },
        key=key,
    )
    ```

    A network built for a dictionary of kinds gets a dictionary of conditions with the
    same names; built for one kind, it gets that condition.
    """


class ClassCondition(AbstractKind):
    """One of several classes, an integer; each has a trained vector.

    **Arguments:**

    - `num_classes`: number of classes.
    """

    num_classes: int = eqx.field(static=True)

    def __check_init__(self):
        _check_positive(self, "num_classes", self.num_classes)


class VectorCondition(AbstractKind):
    """A vector of numbers, read by a linear map.

    **Arguments:**

    - `dim`: its size.
    - `missing`: whether entries may be missing. An entry that is NaN, or False in
        `nn.Condition(value, present)` with `present` of the vector's shape, is replaced
        by a trained vector of that entry. A condition without any entry is none. Data
        for `fit` have masks and not NaN: `nn.masked_condition(cond)`.
    """

    dim: int = eqx.field(static=True)
    missing: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        _check_positive(self, "dim", self.dim)


class ImageCondition(AbstractKind):
    """An image, signal or volume of the example's sizes, as channels beside it.

    One of other sizes is brought to them first, e.g. by `jax.image.resize`.

    Reference: *Image Super-Resolution via Iterative Refinement*, Saharia et al., 2023.

    **Arguments:**

    - `channels`: its channels.
    - `missing`: whether pixels may be missing, as in `VectorCondition`. The network
        then gets as many channels again, which are 1 where a pixel is known.
    """

    channels: int = eqx.field(static=True)
    missing: bool = eqx.field(default=False, static=True)

    def __check_init__(self):
        _check_positive(self, "channels", self.channels)


class SequenceCondition(AbstractKind):
    """A sequence of vectors, read by cross-attention; for `UNet` and `DiT`.

    Shorter sequences are padded and come as `nn.Condition(value, present)` with one
    Boolean for each element: padding is never attended to.

    **Arguments:**

    - `dim`: size of an element.
    - `length`: number of elements; each place then has a trained vector. By default the
        elements are a set, of any number.
    """

    dim: int = eqx.field(static=True)
    length: int | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        _check_positive(self, "dim", self.dim)
        if self.length is not None:
            _check_positive(self, "length", self.length)


Kinds: TypeAlias = AbstractKind | Mapping[str, AbstractKind]
"""One kind of condition, or several by name."""


def check_kinds(conditions: Any, allowed: tuple[type, ...]) -> None:
    """Check that these are kinds of conditions that a network can read.

    **Raises:** `TypeError` with the kinds that it can.
    """
    several = isinstance(conditions, Mapping)
    named = conditions.items() if several else [("conditions", conditions)]
    for name, kind in named:
        if not isinstance(kind, allowed):
            names = ", ".join(f"nn.{cls.__name__}" for cls in allowed)
            given = kind.__name__ if isinstance(kind, type) else type(kind).__name__
            raise TypeError(
                f"{name} is {given}: this network reads {names}, made as in "
                "nn.ClassCondition(10), or a dictionary of them"
            )


def _check_positive(kind, name, value):
    if value < 1:
        raise ValueError(f"{type(kind).__name__}({name}={value}): at least 1")
