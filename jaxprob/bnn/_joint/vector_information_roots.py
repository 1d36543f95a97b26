r"""Roots of the expected information of distributions over classes and vectors.

Each function `root(p, at, moves)` is the $\varphi$ of `expected_information` in the
distribution's own arguments.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import polygamma
from jaxtyping import Array

from .information_roots import Root, nonzero, number


def dirichlet_root(p: Any, at: Any, moves: Any) -> Array | None:
    a = number(at.concentration)
    total = polygamma(1, jnp.sum(a, -1))[..., None, None]
    matrix = polygamma(1, a)[..., None] * jnp.eye(a.shape[-1], dtype=a.dtype) - total
    return jnp.einsum("...ij,...i->...j", jnp.linalg.cholesky(matrix), p.concentration)


def categorical_logits_root(p: Any, at: Any, moves: Any) -> Array | None:
    probs = jax.nn.softmax(number(at.logits))
    return jnp.sqrt(probs) * jax.nn.log_softmax(number(p.logits))


def categorical_probs_root(p: Any, at: Any, moves: Any) -> Array | None:
    return number(p.probs) / jnp.sqrt(nonzero(at.probs))


def multinomial(root: Root) -> Root:
    """Return the root of a sum of independent draws of a class.

    Their number is not a leaf of the distribution, so it never depends on the output.
    """

    def scaled(p, at, moves):
        one = root(p, at, moves)
        return (
            None if one is None else jnp.sqrt(number(at.total_count))[..., None] * one
        )

    return scaled


def multivariate_normal_root(p: Any, at: Any, moves: Any) -> Array | None:
    loc = jnp.broadcast_to(p.loc, p.batch_shape + p.event_shape)
    if type(p) is dist.LowRankMultivariateNormal:
        covariance_moves = moves.cov_factor or moves.cov_diag
        factor = jnp.linalg.cholesky(at.covariance_matrix)
    else:
        covariance_moves, factor = moves.scale_tril, at.scale_tril
    factor = jnp.broadcast_to(factor, (*p.batch_shape, *factor.shape[-2:]))
    white = solve_triangular(factor, loc[..., None], lower=True)[..., 0]
    if not covariance_moves:
        return white
    covariance = jnp.broadcast_to(jnp.asarray(p.covariance_matrix), factor.shape)
    half = solve_triangular(factor, covariance, lower=True)
    inner = solve_triangular(factor, jnp.swapaxes(half, -1, -2), lower=True)
    inner = inner.reshape(*p.batch_shape, -1) / math.sqrt(2.0)
    return jnp.concatenate([white, inner], -1)


def multivariate_student_t_root(p: Any, at: Any, moves: Any) -> Array | None:
    if moves.df or moves.scale_tril:
        return None
    df, num = number(at.df), p.event_shape[-1]
    loc = jnp.broadcast_to(p.loc, p.batch_shape + p.event_shape)
    factor = jnp.broadcast_to(at.scale_tril, (*p.batch_shape, num, num))
    white = solve_triangular(factor, loc[..., None], lower=True)[..., 0]
    return jnp.sqrt((df + num) / (df + num + 2.0))[..., None] * white
