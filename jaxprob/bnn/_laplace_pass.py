"""Passes over the data: the curvature of the log-likelihood at a model."""

import math
from collections.abc import Iterable
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._batch import Batch, unpack
from .._types import Model
from ._curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
    KroneckerBlock,
    KroneckerCurvature,
)
from ._kronecker import factored_layers, kronecker_factors
from ._log_joint import LogJoint, fill_padding, xy
from ._low_rank_curvature import (
    LowRankCurvature,
    curvature_product,
    leading_factor,
    reiterable,
)
from ._output_hessian import Kind, output_hessian
from ._ravel import ravel

Structure: TypeAlias = Literal["full", "diagonal", "kronecker", "low_rank"]


def curvature(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    batches: Iterable[PyTree],
    *,
    structure: Structure,
    kind: Kind,
    rank: int,
) -> tuple[AbstractCurvature, Float[Array, "2"], int]:
    """The curvature over a data set and the values of `output_hessian`, for N rows; and
    how many numbers a row's target holds.

    **Arguments:**

    - `joint`: the likelihood and N. Rows that are seen are scaled to N.
    - `model`: where; used in inference mode.
    - `flags`: the leaves it is over.
    - `batches`: the training set; `"low_rank"` goes through it four times.
    - `structure`: shape of the matrix.
    - `kind`: `"ggn"`, or `"fisher"` for the empirical Fisher matrix.
    - `rank`: of `"low_rank"`.
    """
    model = eqx.nn.inference_mode(model)
    layers = factored_layers(model, flags) if structure == "kronecker" else ()
    batches = reiterable(batches)
    sizes: list[int] = []

    def whole(columns=None):
        total: Any = None
        for batch in batches:
            part = _sums(joint, model, flags, layers, batch, columns, structure, kind)
            total = part if total is None else jax.tree.map(jnp.add, total, part)
            if not sizes:
                sizes.append(math.prod(jnp.shape(xy(unpack(batch)[0])[1])[1:]))
        if total is None:
            raise ValueError("batches gave no batch: give the training set once more")
        return total

    if structure == "low_rank":
        vector, _ = ravel(eqx.filter(model, flags))
        matrix, values, count = leading_factor(whole, vector.size, rank, vector.dtype)
    else:
        matrix, values, count = whole()
    factor = joint.num_data / count
    result: AbstractCurvature
    if structure == "full":
        result = FullCurvature(factor * matrix)
    elif structure == "diagonal":
        result = DiagonalCurvature(factor * matrix)
    elif structure == "low_rank":
        result = LowRankCurvature(jnp.sqrt(factor) * matrix)
    else:
        blocks = [
            KroneckerBlock(factor * a, b / count, layer.start, layer.bias)
            for layer, (a, b) in zip(layers, matrix, strict=True)
        ]
        result = KroneckerCurvature(tuple(blocks))
    return result, factor * values, sizes[0]


@eqx.filter_jit
def _sums(joint, model, flags, layers, batch, columns, structure, kind):
    """Matrix, values and rows of one batch. Compiled once for all passes."""
    data, mask = unpack(batch)
    if isinstance(batch, Batch):
        data = fill_padding(data, mask)
    x, y = xy(data)
    weights = jnp.asarray(mask)
    if structure == "kronecker":
        part = kronecker_factors(joint, model, layers, x, y, weights, kind)
    elif structure == "low_rank":
        part = curvature_product(joint, model, flags, x, y, weights, kind, columns)
    else:
        part = _dense(joint, model, flags, x, y, weights, kind, structure)
    matrix, values = part
    values = jnp.where(weights[:, None], values, jnp.zeros((), values.dtype))
    return matrix, jnp.sum(values, 0), jnp.sum(weights).astype(values.dtype)


def _dense(joint, model, flags, x, y, weights, kind, structure):
    params, rest = eqx.partition(model, flags)
    vector, unravel = ravel(params)

    def one(x, y):
        def output(vector):
            return joint.apply(
                eqx.combine(unravel(vector), rest), x, key=jax.random.key(0)
            )

        hessian, value = output_hessian(joint, output(vector), y, kind)
        jacobian = jax.jacrev(lambda v: ravel(output(v))[0])(vector)
        return jacobian, hessian @ jacobian, value

    jacobian, scaled, values = jax.vmap(one)(x, y)
    zero = jnp.zeros((), scaled.dtype)
    scaled = jnp.where(weights[:, None, None], scaled, zero)
    if structure == "diagonal":
        return jnp.sum(jacobian * scaled, axis=(0, 1)), values
    dim = vector.size
    return jacobian.reshape(-1, dim).T @ scaled.reshape(-1, dim), values
