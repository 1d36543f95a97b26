"""Rows of an update: checked, and padded to one of a few numbers of rows."""

from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..._checks import check_tree_values
from ..._engine.per_object import PerObject
from ..._training.batch import num_rows
from .._joint.check_data import RowCheck
from .._joint.row import Row

# The first row of a check calls the model, which takes longer than an update.
_CHECKS: PerObject[RowCheck] = PerObject()


def checked_rows(posterior: Any, x: PyTree, y: PyTree, weight: Any) -> Row:
    """Return the rows on the host, with copies of the first row of weight zero.

    **Raises:** as `bnn.check_data`.
    """
    x, y = jax.tree.map(np.asarray, (x, y))
    check_tree_values("x", x)
    check_tree_values("y", y)
    shapes = [(a.shape[1:], str(a.dtype)) for a in jax.tree.leaves((x, y))]
    sizes = [np.shape(a) for a in jax.tree.leaves(posterior.params)]
    check = _CHECKS.get(
        posterior.likelihood,
        str((shapes, sizes)),
        lambda: RowCheck(posterior.likelihood, posterior.mean(), posterior.apply),
    )
    check(x, y, weight)
    rows = num_rows(x)
    dtype = posterior.precision.dtype
    counts = np.ones(rows, dtype) if weight is None else np.asarray(weight, dtype)
    short = (1 << (rows - 1).bit_length()) - rows

    def padded(array):
        return np.concatenate([array, np.repeat(array[:1], short, axis=0)])

    x, y = jax.tree.map(padded, (x, y))
    return Row(x, y, np.concatenate([counts, np.zeros(short, dtype)]))
