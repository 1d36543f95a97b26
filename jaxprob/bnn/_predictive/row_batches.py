"""Computation of many rows, a batch of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.batch import num_rows
from .._weights.scale import is_traced


def map_batches(
    function: Callable[[PyTree], PyTree], rows: PyTree, batch_size: int
) -> PyTree:
    """Return `function(rows)`, computed `batch_size` rows at a time.

    Outside of a program the function is called for each batch, so it may look at its
    values and be compiled once for all numbers of rows. Inside of one it is called in a
    loop of the program, which compiles as fast as one batch.

    **Arguments:**

    - `function`: of rows, the leading axis of every array of its argument and result.
    - `rows`: arrays with one leading axis of rows.
    - `batch_size`: how many at once. The last batch is padded with copies of its first
        row, because one shape is one compilation.
    """
    total = num_rows(rows)
    if inside_program(rows):
        if total <= batch_size:
            return function(rows)
        tiles = jax.tree.map(lambda a: _tiled(a, batch_size), rows)
        out = jax.lax.map(function, tiles)
        return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:total], out)
    parts = []
    for start in range(0, total, batch_size):
        count = min(batch_size, total - start)

        def cut(a, start=start, count=count):
            return pad(jnp.asarray(a[start : start + count]), batch_size)

        part = function(jax.tree.map(cut, rows))
        parts.append(jax.tree.map(lambda a, count=count: a[:count], part))
    return jax.tree.map(lambda *a: jnp.concatenate(a), *parts)


def inside_program(tree: PyTree) -> bool:
    """Return whether new values, or those of the tree, are being traced.

    Inside `jax.jit` an operation on constants is traced as well.
    """
    return is_traced(jnp.zeros(())) or any(map(is_traced, jax.tree.leaves(tree)))


def pad(array: Any, rows: int) -> Any:
    """Return the array with its first row repeated until there are `rows`."""
    short = rows - array.shape[0]
    if not short:
        return array
    return jnp.concatenate([array, jnp.repeat(array[:1], short, axis=0)])


def _tiled(array, size):
    """Rows in batches along a new leading axis."""
    array = jnp.asarray(array)
    tiles = -(-array.shape[0] // size)
    array = pad(array, tiles * size)
    return array.reshape(tiles, size, *array.shape[1:])
