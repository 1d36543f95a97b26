"""Conditions that may be absent, and the part of a model that reads them."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree

from ..._types import Model
from .._types import ARRAYS


class Condition(eqx.Module):
    """A condition with a flag of whether it is present.

    Rows of one batch differ in whether their condition is left out
    (`DenoisingLoss(cond_dropout=0.1)`), and the two calls of classifier-free guidance
    are one batch. So "no condition" is a flag beside the value, and never a value: -1
    is the last row of a table, and every float is a valid number.

    `Embedding` reads it. A user's network reads it by `when_present`. In a data set it
    marks the rows that have no condition:

    ```python
    known = labels >= 0
    cond = nn.Condition(np.where(known, labels, 0), known)
    jaxprob.fit(learner, denoiser, (x, cond), key=key, num_steps=1000)
    ```

    **Arguments:**

    - `value`: an array; any valid value where the condition is absent.
    - `present`: Boolean, of one example; with a leading axis, of several. For a network
        built with `nn.VectorCondition(dim, missing=True)` or another kind that has
        parts, one for each entry, pixel or element.
    """

    value: PyTree
    present: Any

    def __init__(self, value: PyTree, present: bool | Bool[Any, "..."]):
        if isinstance(value, Condition):
            raise TypeError("value is a Condition already: give the array it holds")
        if isinstance(present, bool):
            present = jnp.asarray(present)
        kind = present.dtype if isinstance(present, ARRAYS) else type(present).__name__
        if kind != np.dtype(bool):
            raise TypeError(
                f"present is {kind}: give "
                "Booleans, e.g. labels >= 0, that are True where the condition is there"
            )
        axes = len(present.shape)
        for leaf in jax.tree.leaves(value):
            if jnp.shape(leaf)[:axes] != present.shape:
                raise ValueError(
                    f"present has shape {present.shape} and the value "
                    f"{jnp.shape(leaf)}: give one Boolean for each row of the value"
                )
        self.value = value
        self.present = present


def masked_condition(cond: Any) -> Condition:
    """Return a condition whose NaN entries are marked as missing.

    `jaxprob.fit` rejects data with NaN, so missing entries go in as a mask. The network
    is built for them, e.g. with `nn.VectorCondition(dim, missing=True)`.

    ```python
    cond = nn.masked_condition(np.array([[1.0, np.nan], [0.5, 2.0]]))
    ```

    **Arguments:**

    - `cond`: array of floats, of one example or of several.
    """
    if not isinstance(cond, ARRAYS) or not jnp.issubdtype(cond.dtype, jnp.floating):
        kind = cond.dtype if isinstance(cond, ARRAYS) else type(cond).__name__
        raise TypeError(
            f"cond is {kind}: give an array of floats, in which NaN is a missing entry"
        )
    if isinstance(cond, np.ndarray):
        known = ~np.isnan(cond)
        return Condition(np.where(known, cond, np.zeros_like(cond)), known)
    value = jnp.asarray(cond)
    known = ~jnp.isnan(value)
    return Condition(jnp.where(known, value, 0.0), known)


class GuidedCondition(eqx.Module):
    """A condition with the guidance of each sample, for `Guided`.

    ```python
    cond = nn.GuidedCondition(labels, strength=jnp.linspace(0.0, 4.0, len(labels)))
    draws = sample(
        Guided(denoiser, None), ExpAB(4), key=key, num_samples=24, shape=(2,), cond=cond
    )
    ```

    **Arguments:**

    - `value`: the condition; with a leading axis, of several samples.
    - `strength`: guidance strength of each sample, for `Guided(denoiser, None)`.
    - `negative`: the condition of each sample to guide away from, of the structure of
        `value`; by default no condition, or the `null` of `Guided`.
    """

    value: PyTree
    strength: Any
    negative: PyTree

    def __init__(self, value: PyTree, *, strength: Any = None, negative: PyTree = None):
        if isinstance(value, GuidedCondition):
            raise TypeError("value is a GuidedCondition already: give its value")
        if strength is not None:
            kind = strength.dtype if isinstance(strength, ARRAYS) else type(strength)
            if not (
                isinstance(strength, ARRAYS) and jnp.issubdtype(kind, jnp.floating)
            ):
                raise TypeError(
                    f"strength is {kind}: give an array of floats, one for each sample"
                )
        self.value = value
        self.strength = strength
        self.negative = negative


def is_condition(node: Any) -> bool:
    """Return whether this is a `Condition`."""
    return isinstance(node, Condition)


def as_condition(cond: PyTree, present: bool | Bool[Array, ""] = True) -> PyTree:
    """Return the condition with each of its arrays as a `Condition`.

    **Arguments:**

    - `cond`: of one example, an array or a tree of arrays. An absent `Condition` in it
        stays absent.
    - `present`: whether it is present.
    """

    def one(leaf):
        if is_condition(leaf):
            return Condition(leaf.value, leaf.present & present)
        return Condition(leaf, jnp.asarray(present))

    return jax.tree.map(one, cond, is_leaf=is_condition)


def no_condition(cond: PyTree) -> PyTree:
    """Return a condition of the same structure and shapes that is absent."""
    return as_condition(cond, False)


def when_present(cond: PyTree, read: Callable[[Any], Array], nothing: Array) -> Array:
    """Return `read(cond)`, or `nothing` where the condition is absent.

    ```python
    class Net(eqx.Module):
        table: eqx.nn.Embedding
        nothing: jax.Array  # trained, as the rows of the table are

        def __call__(self, x, c, cond=None, *, key=None):
            e = nn.when_present(cond, self.table, self.nothing)
    ```

    **Arguments:**

    - `cond`: `None`, a `Condition`, or a condition that is present.
    - `read`: the function of the condition, e.g. a table or a linear map.
    - `nothing`: of the shape that `read` gives.
    """
    if cond is None:
        return nothing
    if not is_condition(cond):
        return read(cond)

    # The value is replaced before reading: `where` passes NaN to gradients.
    def safe(leaf):
        leaf = jnp.asarray(leaf)
        return jnp.where(cond.present, leaf, jnp.zeros_like(leaf))

    return jnp.where(cond.present, read(jax.tree.map(safe, cond.value)), nothing)


def check_not_boolean(cond: Any) -> None:
    """Check that a condition is a class or a vector, as a Boolean may be either.

    **Raises:** `TypeError` with what to write for each.
    """
    if cond.dtype == bool:
        raise TypeError(
            f"cond is bool{list(cond.shape)}: write cond.astype(int) if it is a class "
            "and cond.astype(float) if it is a vector"
        )


class AbstractConditioned(eqx.Module):
    """Capability of a model: it names the part that reads all of the condition.

    The parts inside a network do not tell: an encoder may stand before them, or the
    condition may be an image beside the input.
    """

    @property
    @abc.abstractmethod
    def reader(self) -> "AbstractReader | None":
        """The part that is given `cond` as it is; `None` where none is known."""


class AbstractReader(AbstractConditioned):
    """A part that reads a class or a vector, and has a vector for no condition.

    **Fields:**

    - `num_classes`: number of classes, if the condition is a class.
    - `cond_dim`: size of the condition, if it is a vector.
    - `nothing`: the vector for no condition, zero until it is trained; `None` where
        there is no condition.
    """

    num_classes: eqx.AbstractVar[int | None]
    cond_dim: eqx.AbstractVar[int | None]
    nothing: eqx.AbstractVar[Float[Array, " dim"] | None]

    @property
    def missing_entries(self) -> bool:
        """True if entries of a vector may be missing, NaN among them."""
        return False

    @property
    def reader(self) -> "AbstractReader | None":
        return self


def reader_of(model: Model) -> AbstractReader | None:
    """Return the part that reads the condition of a model, or `None`."""
    return model.reader if isinstance(model, AbstractConditioned) else None


def null_is_untrained(model: Model) -> bool:
    """Return whether the vector for "no condition" is at its initial value, zero.

    `False` where the entrance of the model is not known, or is being traced.
    """
    reader = reader_of(model)
    # The readers of a dictionary of conditions are inside one that has no vector.
    parts = jax.tree.leaves(reader, is_leaf=_is_reader_with_nothing)
    return any(_is_reader_with_nothing(p) and _is_zero(p.nothing) for p in parts)


def _is_reader_with_nothing(node):
    return isinstance(node, AbstractReader) and node.nothing is not None


def _is_zero(nothing):
    return not isinstance(nothing, Tracer) and not np.asarray(nothing).any()
