"""Positive part of a curvature that was summed over all rows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
)
from .kronecker_curvature import KroneckerCurvature
from .low_rank import LowRankCurvature


def positive_part(
    curvature: AbstractCurvature, tau: Float[Array, " dim"]
) -> tuple[AbstractCurvature, float]:
    r"""Return the curvature without negative eigenvalues, and their fraction.

    The Hessian of a log-likelihood that is not concave in the output may be negative
    in a row. The sum over the rows seldom is, so eigenvalues are set to zero there and
    not in each row. They are those of $D^{-1/2} G D^{-1/2}$, where the diagonal D is
    the sum of those of G and of the prior, so that the result does not depend on the
    units of a weight.

    **Returns:** the curvature; and the sum of the negative eigenvalues over that of all
    absolute values.
    """
    if isinstance(curvature, FullCurvature):
        matrix, negative, total = _positive(curvature.matrix, tau)
        return FullCurvature(matrix), _fraction(negative, total)
    if isinstance(curvature, DiagonalCurvature):
        diagonal = curvature.diagonal
        fraction = _fraction(*_sums(diagonal / tau))
        return DiagonalCurvature(jnp.maximum(diagonal, 0.0)), fraction
    if isinstance(curvature, KroneckerCurvature):
        blocks, fractions = [], []
        for block in curvature.blocks:
            found = [_positive_groups(f) for f in (block.inputs, block.outputs)]
            both = [matrix for matrix, _, _ in found]
            blocks.append(eqx.tree_at(lambda b: (b.inputs, b.outputs), block, both))
            fractions += [_fraction(negative, total) for _, negative, total in found]
        return KroneckerCurvature(tuple(blocks)), max(fractions)
    assert isinstance(curvature, LowRankCurvature)
    # Its eigenvectors are those of positive eigenvalues already.
    return curvature, float(np.asarray(curvature.negative))


@jax.jit
def _positive(matrix, least):
    scale = jnp.sqrt(jnp.abs(jnp.diag(matrix)) + least)
    scale = jnp.where(scale > 0, scale, jnp.ones((), scale.dtype))
    white = matrix / scale[:, None] / scale[None]
    values, vectors = jnp.linalg.eigh(white)
    negative, total = _sums(values)
    root = (scale[:, None] * vectors) * jnp.sqrt(jnp.maximum(values, 0.0))[None]
    # Rounding leaves eigenvalues of a positive matrix a little below zero.
    untouched = negative <= jnp.finfo(values.dtype).eps * len(values) * total
    negative = jnp.where(untouched, jnp.zeros_like(negative), negative)
    return jnp.where(untouched, matrix, root @ root.T), negative, total


def _positive_groups(matrices):
    matrices, negative, total = jax.vmap(_positive, (0, None))(
        matrices, jnp.zeros((), matrices.dtype)
    )
    return matrices, jnp.sum(negative), jnp.sum(total)


def _sums(values):
    return jnp.sum(jnp.maximum(-values, 0.0)), jnp.sum(jnp.abs(values))


def _fraction(negative, total):
    return float(np.asarray(negative / jnp.where(total > 0, total, 1.0)))
