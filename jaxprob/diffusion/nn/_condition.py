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
    - `present`: Boolean, of one example; with a leading axis, of several.
    """

    value: PyTree
    present: Any

    def __init__(self, value: PyTree, present: bool | Bool[Any, "..."]):
        if isinstance(value, Condition):
            raise TypeError("value is a Condition already: give the array it holds")
        if isinstance(present, bool):
            present = jnp.asarray(present)
        kind = getattr(present, "dtype", type(present).__name__)
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
        nothing: Array  # trained, as the rows of the table are

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
    if reader is None or reader.nothing is None or isinstance(reader.nothing, Tracer):
        return False
    return not np.asarray(reader.nothing).any()


def check_given(model: Model, cond: PyTree) -> None:
    """Check that a condition is given where a model requires one.

    **Raises:** `ValueError` for no condition where the vector for none was never
    trained.
    """
    if cond is None and null_is_untrained(model):
        raise ValueError(
            "cond=None, but the network takes a condition and its vector for no "
            "condition is zero, so it was never trained: give a condition, or train "
            "with DenoisingLoss(cond_dropout=0.1)"
        )


def check_condition(model: Model, cond: PyTree) -> None:
    """Check that the rows of a condition are ones that the model has.

    Inside a traced computation an unknown class can only read as NaN; here, on the
    host, the error names it. Only the model's `reader` is consulted, so a user's
    network may take any condition.

    **Arguments:**

    - `model`: a network or a denoiser.
    - `cond`: conditions of several examples, or `None`.

    **Raises:** `ValueError` that names the row; `TypeError` for Booleans and for
    classes that are not integers.
    """
    reader = reader_of(model)
    rows, present = cond, None
    if is_condition(cond):
        rows, present = cond.value, cond.present
    leaves = (rows, present)
    if reader is None or not hasattr(rows, "dtype"):
        return
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return
    if reader.num_classes is None and reader.cond_dim is None:
        raise ValueError(
            "there is a condition, but the network was built without one; build it "
            "with num_classes or cond_dim"
        )
    check_not_boolean(rows)
    rows = np.asarray(rows)
    known = np.ones(rows.shape[:1], bool) if present is None else np.asarray(present)
    if reader.num_classes is not None:
        _check_classes(rows, known, reader.num_classes)
    else:
        _check_vectors(rows, known, reader.cond_dim)


def _check_classes(rows, present, num_classes):
    if rows.ndim != 1:
        raise ValueError(
            f"cond is {rows.dtype}{list(rows.shape)} where classes are needed, one "
            f"integer in 0, ..., {num_classes - 1} for each row"
        )
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(
            f"cond is {rows.dtype}{list(rows.shape)} where classes are needed, "
            f"integers in 0, ..., {num_classes - 1}: write cond.astype(int)"
        )
    bad = present & ((rows < 0) | (rows >= num_classes))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"cond row {row} is class {rows[row]}, outside 0, ..., {num_classes - 1}. "
            "Relabel the rows or raise num_classes. If it stands for no class, write "
            "nn.Condition(np.where(known, cond, 0), known) with known = cond >= 0"
        )


def _check_vectors(rows, present, dim):
    if rows.shape[1:] != (dim,):
        raise ValueError(
            f"cond has rows of shape {rows.shape[1:]} where ({dim},) is needed"
        )
    finite = np.isfinite(rows) if np.issubdtype(rows.dtype, np.inexact) else None
    if finite is None or finite[present].all():
        return
    row = int(np.argmax(present & ~finite.all(axis=1)))
    column = int(np.argmax(~finite[row]))
    raise ValueError(
        f"cond row {row} is not finite, first in column {column}. If the row has no "
        "condition, write nn.Condition(np.nan_to_num(cond), known) with known = "
        "np.isfinite(cond).all(axis=1). If single entries are missing, impute them, "
        "and give the network a mask as further entries"
    )


def check_not_boolean(cond: Any) -> None:
    """Check that a condition is a class or a vector, as a Boolean may be either.

    **Raises:** `TypeError` with what to write for each.
    """
    if cond.dtype == bool:
        raise TypeError(
            f"cond is bool{list(cond.shape)}: write cond.astype(int) if it is a class "
            "and cond.astype(float) if it is a vector"
        )
