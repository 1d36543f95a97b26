"""The mean of a loss over a batch, a few rows at a time, with its gradient."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..._training.batch import num_rows
from ..._types import Model
from .._types import Scalar


def mean_in_batches(
    model: Model,
    errors: Callable[[Model, PyTree], Array],
    rows: PyTree,
    mask: Bool[Array, " batch"],
    batch_size: int,
) -> Scalar:
    """Return the mean of `errors(model, rows)`, computed `batch_size` rows at a time.

    The gradient of a mean is a mean of gradients, so the gradient of each part is taken
    while its activations are in memory, and only the sum is kept. Reverse mode of a
    plain loop over parts would keep the activations of all.

    **Arguments:**

    - `model`: what is differentiated.
    - `errors`: one number for each row.
    - `rows`: trees of arrays with one leading axis.
    - `mask`: which rows count.
    - `batch_size`: rows in a part; the last part is padded with copies of row 0.
    """
    num = num_rows(rows)
    short = -num % batch_size

    def split(leaf):
        padding = jnp.repeat(leaf[:1], short, axis=0)
        whole = jnp.concatenate([leaf, padding])
        return whole.reshape(-1, batch_size, *leaf.shape[1:])

    parts = jax.tree.map(split, rows)
    counts = split(mask).at[-1, batch_size - short :].set(False)
    total = _total(model, errors, parts, counts)
    return total / jnp.maximum(jnp.sum(mask), 1).astype(total.dtype)


def _part_total(model, errors, part, counts):
    values = errors(model, part)
    return jnp.sum(jnp.where(counts, values, jnp.zeros((), values.dtype)))


@eqx.filter_custom_vjp
def _total(model, errors, parts, counts):
    def add(total, part):
        return total + _part_total(model, errors, *part), None

    first = jax.tree.map(lambda leaf: leaf[0], (parts, counts))
    kind = eqx.filter_eval_shape(_part_total, model, errors, *first)
    return jax.lax.scan(add, jnp.zeros((), kind.dtype), (parts, counts))[0]


@_total.def_fwd
def _forward(perturbed, model, errors, parts, counts):
    params, rest = eqx.partition(model, perturbed)

    def of_params(params, part):
        return _part_total(eqx.combine(params, rest), errors, *part)

    first = jax.tree.map(lambda leaf: leaf[0], (parts, counts))
    kind = jax.eval_shape(of_params, params, first)

    def add(sums, part):
        value, gradient = jax.value_and_grad(of_params)(params, part)
        return jax.tree.map(jnp.add, sums, (value, gradient)), None

    zeros = jnp.zeros((), kind.dtype), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zeros, (parts, counts))[0]


@_total.def_bwd
def _backward(gradient, cotangent, perturbed, model, errors, parts, counts):
    return jax.tree.map(lambda leaf: leaf * cotangent.astype(leaf.dtype), gradient)
