"""Sums over the rows of a batch in bounded memory."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

MAX_BYTES = 2**26


def batch_size_for(bytes_of_one: int, largest: int) -> int:
    """Return how many rows fit into `MAX_BYTES`: at least one, at most `largest`."""
    return max(1, min(largest, MAX_BYTES // max(bytes_of_one, 1)))


def sum_over_rows(
    function: Callable[..., PyTree],
    rows: PyTree,
    weights: Float[Array, " rows"],
    batch_size: int,
) -> PyTree:
    """Return the sum of `function(rows, weights)` over parts of the rows.

    **Arguments:**

    - `function`: of some rows and their weights; its result is a weighted sum.
    - `rows`: arrays with one leading axis.
    - `weights`: how often each row counts.
    - `batch_size`: the largest number of rows in a part.
    """
    num = len(weights)
    if batch_size >= num:
        return function(rows, weights)
    count = math.ceil(num / batch_size)
    size = math.ceil(num / count)

    def split(array):
        # The last part is filled up with copies of the last row, which do not count.
        short = count * size - num
        array = jnp.concatenate([array, jnp.repeat(array[-1:], short, axis=0)])
        return array.reshape(count, size, *array.shape[1:])

    counted = jnp.pad(weights, (0, count * size - num))
    parts = (jax.tree.map(split, rows), counted.reshape(count, size))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda a: a[0], parts))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total, part):
        return jax.tree.map(jnp.add, total, function(*part)), None

    return jax.lax.scan(add, zero, parts)[0]
