"""Errors and warnings about a curvature, after the pass over the data."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._joint.output_hessian import Kind
from .curvature import AbstractCurvature, FullCurvature
from .kronecker_curvature import KroneckerCurvature
from .low_rank import LowRankCurvature
from .positive_part import positive_part

NEGATIVE_FRACTION = 0.01
EXCESS_FRACTION = 0.2


def check_curvature(
    matrix: AbstractCurvature, log_likelihood: Float[Array, ""]
) -> None:
    """Raise `FloatingPointError` unless all numbers are finite."""
    arrays = jax.tree.leaves(eqx.filter(matrix, eqx.is_inexact_array))
    if not all(np.isfinite(a).all() for a in map(np.asarray, arrays)):
        raise FloatingPointError(
            "the curvature of the log-likelihood is not finite at the mode, where the "
            f"log-likelihood is {log_likelihood}: look at the scale of the data, or "
            "train with a lower learning rate"
        )


def without_negative(
    matrix: AbstractCurvature, tau: Float[Array, " dim"]
) -> tuple[AbstractCurvature, float]:
    """Return the positive part and the fraction that was negative, with a warning."""
    positive, fraction = positive_part(matrix, tau)
    if fraction > NEGATIVE_FRACTION:
        warnings.warn(
            f"{fraction:.0%} of the curvature of the log-likelihood is negative, "
            "summed over the rows, and was set to zero: the posterior is too narrow "
            "or too wide there. The likelihood is not log-concave in the output, and "
            "its expected information has no closed form here. Write Laplace(..., "
            "kind='hessian') after training to convergence, or sample with NUTS.",
            stacklevel=4,
        )
    return positive, fraction


def check_precision(
    matrix: AbstractCurvature, tau: Float[Array, " dim"], kind: Kind
) -> None:
    """Raise `FloatingPointError` where the precision has no root in its dtype."""
    if not isinstance(matrix, FullCurvature) or np.isfinite(_log_det(matrix, tau)):
        return
    if kind == "hessian":
        least = np.linalg.eigvalsh(np.asarray(matrix.matrix) + np.diag(tau))[0]
        raise FloatingPointError(
            "the Hessian of the log joint is not negative definite: in one direction "
            f"its curvature is {least:.1e}, so the weights are not at a mode. Train "
            "longer, with a lower learning rate at the end; or write kind='ggn', which "
            "has no negative eigenvalues."
        )
    largest = np.max(np.diag(matrix.matrix))
    raise FloatingPointError(
        f"in {matrix.matrix.dtype} the precision of all weights has no root: its "
        f"diagonal reaches {largest:.1e}, and the smallest precision of the prior "
        f"is {np.min(tau):.1e}. Set jax_enable_x64, or take "
        "structure='kronecker' or 'low_rank'."
    )


def warn_if_flat(matrix: AbstractCurvature) -> None:
    """Warn where the log-likelihood has no curvature at all."""
    if isinstance(matrix, KroneckerCurvature):
        arrays = [_trace(block) for block in matrix.blocks]
    elif isinstance(matrix, LowRankCurvature):
        arrays = [matrix.factor]
    else:
        arrays = jax.tree.leaves(eqx.filter(matrix, eqx.is_inexact_array))
    if not any(np.any(np.asarray(a) != 0) for a in arrays):
        warnings.warn(
            "the log-likelihood has no curvature at the mode, so the posterior is the "
            "prior around it. Either the likelihood is piecewise linear in the output "
            "(write kind='fisher'), or no output depends on these weights.",
            stacklevel=4,
        )


def warn_of_left_out(matrix: LowRankCurvature, tau: Float[Array, " dim"]) -> None:
    r"""Warn where a low rank leaves directions to the prior that the data determine.

    With eigenvalues $\lambda$ of $T^{-1} R$, where R is left out, the variance there is
    1 in units of the prior where it should be $1 / (1 + \lambda)$. Weighted by the
    variance that a direction gives the outputs at the training inputs, $\sum \lambda$
    stands for $\sum \lambda / (1 + \lambda) \ge \sum \lambda / (1 + \bar\lambda)$,
    where $\bar\lambda = \sum \lambda^2 / \sum \lambda$ (Jensen's inequality).
    """
    _, variance, square = map(float, matrix.residual)
    if variance <= 0:
        return
    mean = square / variance
    kept = np.linalg.eigvalsh(np.asarray(_gram(matrix, tau)))
    explained = float(np.sum(kept / (1.0 + kept)))
    total = variance + explained
    excess = (variance - variance / (1.0 + mean)) / total
    if excess > EXCESS_FRACTION:
        rank = matrix.factor.shape[1]
        warnings.warn(
            f"rank={rank} leaves out {float(matrix.left_out):.0%} of the curvature. In "
            "those directions the posterior is as wide as the prior, where the data "
            f"make its variance up to {1.0 + mean:.3g} times smaller, and they make "
            f"{variance / total:.0%} of the variance of the outputs at the training "
            "inputs: predictions are less certain than they should be, and draws of "
            "class probabilities drown the mode. Write a larger rank, "
            "structure='kronecker' or 'diagonal', or the last layer alone by `where`; "
            "or tighten the prior by tune_prior.",
            stacklevel=4,
        )


def check_columns(matrix: KroneckerCurvature, tau: Float[Array, " dim"]) -> None:
    """Raise `ValueError` unless each input of a layer has one prior precision.

    With other priors the sum of Kronecker product and prior has no closed inverse.
    """
    for block in matrix.blocks:
        rows = np.asarray(block.matrix(tau))
        if not (rows == rows[:, :1]).all():
            raise ValueError(
                f"no Kronecker form for the prior of {block.path}: "
                "structure='kronecker' takes priors whose precision is the same for "
                "all outputs of a layer, such as one Normal for each leaf; this one's "
                "differs. Use structure='diagonal', 'low_rank' or 'full', or leave the "
                "leaf out by `where`."
            )


def _trace(block):
    traces = [np.trace(f, axis1=1, axis2=2) for f in (block.inputs, block.outputs)]
    return traces[0] * traces[1]


@eqx.filter_jit
def _log_det(matrix, tau):
    return matrix.log_det(tau)


@eqx.filter_jit
def _gram(matrix, tau):
    white = matrix.factor / jnp.sqrt(tau)[:, None]
    return white.T @ white
