"""The mean of a loss over a batch, a few rows at a time, with its gradient."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..._training.batch import num_rows
from ..._types import Model
from .._types import Scalar


def mean_in_chunks(
    model: Model,
    errors: Callable[[Model, PyTree], Array],
    rows: PyTree,
    mask: Bool[Array, " batch"],
    size: int,
) -> Scalar:
    """Mean of `errors(model, rows)` over the rows that count, `size` rows at a time.

    The gradient of a mean is a mean of gradients, so each chunk's is taken while its
    activations are at hand, and only the sum is kept. Reverse mode of a plain loop over
    chunks would keep the activations of them all.

    **Arguments:**

    - `model`: what is differentiated.
    - `errors`: one number for each row.
    - `rows`: trees of arrays with one leading axis.
    - `mask`: which rows count.
    - `size`: rows in a chunk; the last one is padded with copies of row 0.
    """
    num = num_rows(rows)
    short = -num % size

    def split(leaf):
        padding = jnp.repeat(leaf[:1], short, axis=0)
        whole = jnp.concatenate([leaf, padding])
        return whole.reshape(-1, size, *leaf.shape[1:])

    chunks = jax.tree.map(split, rows)
    counts = split(mask).at[-1, size - short :].set(False)
    total = _total(model, errors, chunks, counts)
    return total / jnp.maximum(jnp.sum(mask), 1).astype(total.dtype)


def _chunk_total(model, errors, chunk, counts):
    values = errors(model, chunk)
    return jnp.sum(jnp.where(counts, values, jnp.zeros((), values.dtype)))


@eqx.filter_custom_vjp
def _total(model, errors, chunks, counts):
    def add(total, chunk):
        return total + _chunk_total(model, errors, *chunk), None

    first = jax.tree.map(lambda leaf: leaf[0], (chunks, counts))
    kind = eqx.filter_eval_shape(_chunk_total, model, errors, *first)
    return jax.lax.scan(add, jnp.zeros((), kind.dtype), (chunks, counts))[0]


@_total.def_fwd
def _forward(perturbed, model, errors, chunks, counts):
    params, rest = eqx.partition(model, perturbed)

    def of_params(params, chunk):
        return _chunk_total(eqx.combine(params, rest), errors, *chunk)

    first = jax.tree.map(lambda leaf: leaf[0], (chunks, counts))
    kind = jax.eval_shape(of_params, params, first)

    def add(sums, chunk):
        value, gradient = jax.value_and_grad(of_params)(params, chunk)
        return jax.tree.map(jnp.add, sums, (value, gradient)), None

    zeros = jnp.zeros((), kind.dtype), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zeros, (chunks, counts))[0]


@_total.def_bwd
def _backward(gradient, cotangent, perturbed, model, errors, chunks, counts):
    return jax.tree.map(lambda leaf: leaf * cotangent.astype(leaf.dtype), gradient)
