"""Readers of images and sequences, and of several conditions by name."""

import functools
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._types import PRNGKey
from .._types import Cond
from ._condition import AbstractReader, Condition, is_condition
from ._images import linear
from ._kinds import (
    AbstractKind,
    ClassCondition,
    ImageCondition,
    Kinds,
    SequenceCondition,
    VectorCondition,
)
from ._rows import AbstractRowReader, RowReader


class ImageReader(AbstractReader):
    """An image as channels, with one trained number per channel for no image."""

    nothing: Float[Array, " channels"]
    kind: ImageCondition

    def __init__(self, kind: ImageCondition):
        self.nothing = jnp.zeros((kind.channels,))
        self.kind = kind

    num_classes = cond_dim = None

    @property
    def missing_entries(self) -> bool:
        return self.kind.missing

    @property
    def num_channels(self) -> int:
        """Channels that the network gets."""
        return self.kind.channels * (2 if self.kind.missing else 1)

    def __call__(
        self, cond: Array | Condition | None, spatial: tuple[int, ...], dtype
    ) -> Float[Array, "channels *spatial"]:
        """Return the channels of a condition, in the dtype of the example."""
        shape = self.kind.channels, *spatial
        value, present = _value_and_flag(cond, jnp.zeros(shape, dtype))
        if value.shape != shape:
            raise ValueError(
                f"cond has shape {value.shape} where an image of shape {shape} is "
                "needed: bring it to the sizes of the example, e.g. by "
                "jax.image.resize"
            )
        value = value.astype(dtype)
        if self.kind.missing:
            present = present & ~jnp.isnan(value)
        elif present.ndim:
            raise ValueError(
                f"present has shape {present.shape} for one image: the network was "
                "built for images without missing pixels. Build it with "
                "nn.ImageCondition(channels, missing=True)"
            )
        known = jnp.broadcast_to(present, shape)
        nothing = self.nothing.astype(dtype).reshape(-1, *[1] * len(spatial))
        nothing = jnp.broadcast_to(nothing, shape)
        # A value that is not there may be NaN, which `where` passes to gradients.
        value = jnp.where(known, jnp.where(known, value, 0.0), nothing)
        return jnp.concatenate([value, known.astype(dtype)][: 1 + self.kind.missing])


class SequenceReader(AbstractReader):
    """A sequence as tokens, with one trained token that stands for none."""

    linear: eqx.nn.Linear
    positions: Float[Array, "length dim"] | None
    nothing: Float[Array, " dim"]
    kind: SequenceCondition

    def __init__(self, kind: SequenceCondition, dim: int, *, key: PRNGKey):
        linear_key, position_key = jax.random.split(key)
        self.linear = eqx.nn.Linear(kind.dim, dim, key=linear_key)
        self.positions = None
        if kind.length is not None:
            self.positions = 0.02 * jax.random.normal(position_key, (kind.length, dim))
        self.nothing = jnp.zeros((dim,))
        self.kind = kind

    num_classes = cond_dim = None

    def __call__(
        self, cond: Array | Condition | None, dtype
    ) -> tuple[Float[Array, "tokens dim"], Bool[Array, " tokens"]]:
        """Return the tokens of a condition, and which of them may be attended to."""
        length = 1 if self.kind.length is None else self.kind.length
        value, present = _value_and_flag(cond, jnp.zeros((length, self.kind.dim)))
        right = self.kind.length is None or len(value) == length
        if value.ndim != 2 or value.shape[1] != self.kind.dim or not right:
            wanted = ("length" if self.kind.length is None else length, self.kind.dim)
            raise ValueError(
                f"cond has shape {value.shape} where a sequence of shape "
                f"({wanted[0]}, {wanted[1]}) is needed: pad it, and give "
                "nn.Condition(value, present) with one Boolean for each element"
            )
        known = jnp.broadcast_to(present, value.shape[:1])
        value = jnp.where(known[:, None], value.astype(dtype), 0.0)
        tokens = linear(self.linear, value.astype(self.linear.weight.dtype))
        if self.positions is not None:
            tokens = tokens + self.positions
        tokens = jnp.concatenate([self.nothing[None], tokens])
        return tokens.astype(dtype), jnp.concatenate([~known.any(keepdims=True), known])


class ReadConditions(eqx.Module):
    """Conditions as a network reads them."""

    row: Float[Array, " dim"] | None = None
    channels: Float[Array, "channels *spatial"] | None = None
    tokens: Float[Array, "tokens dim"] | None = None
    mask: Bool[Array, " tokens"] | None = None


class ConditionReader(AbstractReader):
    """The readers of all conditions of a network.

    **Arguments:**

    - `conditions`: one kind, or several by name.
    - `dim`: size of rows and tokens.
    - `key`: of the initial weights.
    """

    parts: dict[str, AbstractReader]
    alone: bool = eqx.field(static=True)

    def __init__(self, conditions: Kinds, dim: int, *, key: PRNGKey):
        self.alone = not isinstance(conditions, Mapping)
        named: dict[str, AbstractKind] = (
            dict(conditions)
            if isinstance(conditions, Mapping)
            else {"cond": conditions}
        )
        self.parts = {
            name: _reader(named[name], dim, key=jax.random.fold_in(key, i))
            for i, name in enumerate(sorted(named))
        }

    num_classes = cond_dim = nothing = None

    @property
    def num_channels(self) -> int:
        """Channels beside the example."""
        images = (p for p in self.parts.values() if isinstance(p, ImageReader))
        return sum(image.num_channels for image in images)

    @property
    def has_tokens(self) -> bool:
        """True if there is a sequence to attend to."""
        return any(isinstance(p, SequenceReader) for p in self.parts.values())

    def named(self, cond: Cond) -> dict[str, Cond]:
        """Return the condition of each part by name, `None` for one that is absent.

        **Raises:** `TypeError` or `ValueError` for other names.
        """
        if self.alone or cond is None:
            return dict.fromkeys(self.parts, cond)
        if not isinstance(cond, Mapping):
            raise TypeError(
                f"cond is a {type(cond).__name__}, and the network was built for "
                f"conditions named {sorted(self.parts)}: give a dictionary"
            )
        if set(cond) != set(self.parts):
            raise ValueError(
                f"cond has the names {sorted(cond)}, and the network was built for "
                f"{sorted(self.parts)}. One that is absent is None"
            )
        return dict(cond)

    def __call__(self, cond: Cond, spatial: tuple[int, ...], dtype) -> ReadConditions:
        """Return vector, channels and tokens of the condition of one example."""
        rows, channels, tokens, masks = [], [], [], []
        for name, value in sorted(self.named(cond).items()):
            part = self.parts[name]
            if isinstance(part, ImageReader):
                channels.append(part(value, spatial, dtype))
            elif isinstance(part, SequenceReader):
                read, mask = part(value, dtype)
                tokens.append(read)
                masks.append(mask)
            else:
                assert isinstance(part, AbstractRowReader)
                rows.append(part.row(value))
        joined = [jnp.concatenate(a) if a else None for a in (channels, tokens, masks)]
        row = functools.reduce(jnp.add, rows) if rows else None
        return ReadConditions(row, *joined)


def _reader(kind: AbstractKind, dim: int, *, key: PRNGKey) -> AbstractReader:
    if isinstance(kind, ClassCondition):
        return RowReader(dim, num_classes=kind.num_classes, key=key)
    if isinstance(kind, VectorCondition):
        missing = kind.missing
        return RowReader(dim, cond_dim=kind.dim, missing_entries=missing, key=key)
    if isinstance(kind, ImageCondition):
        return ImageReader(kind)
    assert isinstance(kind, SequenceCondition)
    return SequenceReader(kind, dim, key=key)


def _value_and_flag(cond, default):
    """Return the array of a condition and whether it, or each part of it, is there."""
    if cond is None:
        return default, jnp.asarray(False)
    if is_condition(cond):
        return jnp.asarray(cond.value), jnp.asarray(cond.present)
    return jnp.asarray(cond), jnp.asarray(True)
