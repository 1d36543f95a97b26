"""Batches along a new axis and out of it, and arrays as a compiled step wants them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._training.batch import as_batches


def gather(table: PyTree, rows: Array, mask: Array | None) -> PyTree:
    """Return the batches of a `RowStack`."""
    data = jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"), table)
    return as_batches(data, mask)


def at(stacked: PyTree, i: Any) -> PyTree:
    """Return the entry at one place of the leading axis of every array."""
    take = functools.partial(jax.lax.dynamic_index_in_dim, index=i, keepdims=False)
    return jax.tree.map(take, stacked)


def stack_into(slots: int, *leaves: Any) -> np.ndarray:
    """Return arrays along a new axis, in a new buffer.

    On CPU the device may read it in place. Beyond them are zeros: no step computes with
    those, but where JAX makes float32 of float64, chance bits would overflow.
    """
    first = np.asarray(leaves[0])
    out = np.zeros((slots, *first.shape), first.dtype)
    for place, leaf in enumerate(leaves):
        out[place] = leaf
    return out


@jax.jit
def copied(arrays: PyTree) -> PyTree:
    """Return copies, made in one dispatch: one by one, each shape is a program."""
    return jax.tree.map(jnp.copy, arrays)


@jax.jit
def owned(arrays: PyTree) -> PyTree:
    """Return copies of a strong type, which may be donated."""
    return jax.tree.map(lambda leaf: strongly_typed(jnp.copy(leaf)), arrays)


def strongly_typed(leaf: Array) -> Array:
    """Return the array with a strong type.

    `jnp.full(shape, 0.1)` is weakly typed and the updated leaf is not: the program
    would be compiled again for the second step.
    """
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return jax.lax.convert_element_type(leaf, np.dtype(leaf.dtype))


def shape_of(batch: PyTree) -> Any:
    """Return structure, shapes and dtypes of a batch, which one program has."""
    leaves, structure = jax.tree.flatten(batch)
    return structure, [(np.shape(leaf), np.result_type(leaf)) for leaf in leaves]
