"""Arrays that are not finite: where they stand, and the error that ends a run."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from .._checks import path_name
from .._types import State


class NonFiniteError(FloatingPointError):
    """Error of a training step after which the state is not finite.

    ```python
    try:
        stepper(batches)
    except jaxprob.NonFiniteError as error:
        model = learner.model(error.state)
    ```

    **Fields:**

    - `state`: the learner's state before that step, the last good one.
    - `step`: its number.
    - `leaves`: where the gradient was not finite, or else what the step broke.
    """

    def __init__(self, message: str, *, state: State, step: int, leaves: list[str]):
        super().__init__(message)
        self.state = state
        self.step = step
        self.leaves = leaves

    def __reduce__(self):
        return restored, (type(self), self.args, vars(self))


def restored(kind: type[Exception], args: tuple, fields: dict[str, Any]) -> Exception:
    """Return an error that comes from another process, with all its fields."""
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    return error


@jax.jit
def finite_leaves(arrays: PyTree) -> Bool[Array, " leaves"]:
    """Return for each array of a tree whether all its entries are finite."""

    def one(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.ones((), bool)
        return jnp.all(jnp.isfinite(leaf))

    return jnp.array([one(leaf) for leaf in jax.tree.leaves(arrays)], bool)


def not_finite(tree: PyTree) -> list[str]:
    """Return paths of the arrays of a tree that are not finite."""
    arrays = eqx.filter(tree, eqx.is_array)
    return paths_where(arrays, ~np.asarray(finite_leaves(arrays)))


def paths_where(tree: PyTree, flags: Any) -> list[str]:
    """Return the paths of the arrays of a tree whose flag is set."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        path_name(path) for (path, _), flag in zip(leaves, flags, strict=True) if flag
    ]
