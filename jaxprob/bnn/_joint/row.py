"""Inputs, targets and weights of a batch, or of one of its rows."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree


class Row(NamedTuple):
    """One row, or many along a leading axis.

    **Fields:**

    - `x`: input.
    - `y`: target: an array, a pair `(values, observed)` of which some entries are
        missing (see `masked_targets`), or a dict of such.
    - `weight`: how often the row counts. `None` stands for once, for each row.
    """

    x: PyTree
    y: PyTree
    weight: Any = None

    def known(self, mask: Bool[Array | np.ndarray, " rows"]) -> Float[Array, " rows"]:
        """Return how often each row counts, zero for padding, as numbers."""
        mask = jnp.asarray(mask)
        if self.weight is None:
            return mask.astype(jnp.result_type(float))
        weight = jnp.asarray(self.weight)
        if not jnp.issubdtype(weight.dtype, jnp.floating):
            weight = weight.astype(jnp.result_type(float))
        return jnp.where(mask, weight, jnp.zeros((), weight.dtype))


def as_row(data: Any) -> Row:
    """Return `(x, y)` or `(x, y, weight)` by its parts.

    **Raises:** `TypeError` for anything else.
    """
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise TypeError(
            "a batch is a pair (x, y), or (x, y, weight), and this one is "
            f"{type(data).__name__}"
            + (f" of length {len(data)}" if isinstance(data, tuple | list) else "")
        )
    return Row(*data)


def weighted(weights: Float[Array, " rows"], values: Array) -> Array:
    """Return the values of each row times its weight, zero where that is zero.

    `where`, because values of rows that do not count may be NaN, and zero times NaN is.
    """
    factor = weights.reshape(weights.shape + (1,) * (values.ndim - 1))
    factor = factor.astype(values.dtype)
    return jnp.where(factor > 0, factor * values, jnp.zeros((), values.dtype))


def check_weights(weight: Any, rows: int) -> None:
    """Reject weights that are negative, not finite, or not one for each row.

    **Raises:** `ValueError` or `TypeError` with the row and the remedy.
    """
    array = np.asarray(weight)
    if array.shape != (rows,):
        raise ValueError(
            f"weight has shape {array.shape} and x has {rows} rows: in (x, y, weight) "
            "it is one number for each row, such as weight.reshape(-1)"
        )
    if not jnp.issubdtype(array.dtype, jnp.floating):
        # Whole numbers in a third place are more often the numbers of the rows.
        raise TypeError(
            f"weight is {array.dtype} where floating-point numbers are needed: in "
            "(x, y, weight) it says how often a row counts. Write "
            "weight.astype(np.float32), or leave out what is no weight"
        )
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"weight row {row} is {array[row]}: it says how often the row counts, so "
            "it is finite and not negative. A row of weight 0 is left out"
        )
