"""Sums over the rows of a batch in bounded memory."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

CHUNK_BYTES = 2**26


def at_once(bytes_of_one: int, most: int) -> int:
    """Return how many of `most` go together in `CHUNK_BYTES`; at least one."""
    return max(1, min(most, CHUNK_BYTES // max(bytes_of_one, 1)))


def sum_over_rows(
    function: Callable[..., PyTree],
    rows: PyTree,
    weights: Bool[Array, " rows"],
    size: int,
) -> PyTree:
    """Return the sum of `function(rows, weights)` over chunks of at most `size` rows.

    **Arguments:**

    - `function`: of some rows and their weights; its result is a sum over those that
        count.
    - `rows`: arrays with one leading axis.
    - `weights`: which rows count.
    - `size`: rows at a time.
    """
    num = len(weights)
    if size >= num:
        return function(rows, weights)
    count = math.ceil(num / size)
    size = math.ceil(num / count)

    def cut(array):
        # The last chunk is filled up with copies of the last row, which do not count.
        short = count * size - num
        array = jnp.concatenate([array, jnp.repeat(array[-1:], short, axis=0)])
        return array.reshape(count, size, *array.shape[1:])

    counted = jnp.concatenate([weights, jnp.zeros(count * size - num, bool)])
    chunks = (jax.tree.map(cut, rows), counted.reshape(count, size))
    shapes = jax.eval_shape(function, *jax.tree.map(lambda a: a[0], chunks))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total, chunk):
        return jax.tree.map(jnp.add, total, function(*chunk)), None

    return jax.lax.scan(add, zero, chunks)[0]
