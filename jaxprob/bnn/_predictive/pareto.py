"""Pareto-smoothed importance weights."""

import math

import numpy as np
import scipy.special
from jaxtyping import Float

LEAST_TAIL = 5
"""Ratios from which a generalised Pareto distribution can be fitted."""

SCALE_PRIOR, SHAPE_PRIOR = 3.0, 10.0


def pareto_smooth(
    log_ratios: Float[np.ndarray, "draws n"], efficiency: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "draws n"], Float[np.ndarray, " n"]]:
    r"""Return normalised log weights, and $\hat k$ of each column.

    The largest M ratios are replaced by the quantiles of a generalised Pareto
    distribution that is fitted to them, with the shape $\hat k$; $M = \min(S / 5, 3
    \sqrt{S / r})$. Weights with $\hat k < \min(1 - 1 / \log_{10} S, 0.7)$ give reliable
    means.

    References: *Pareto smoothed importance sampling*, Vehtari, Simpson, Gelman, Yao and
    Gabry, 2024, https://arxiv.org/abs/1507.02646, algorithm 1; *A new and efficient
    estimation method for the generalized Pareto distribution*, Zhang and Stephens,
    2009.

    **Arguments:**

    - `log_ratios`: of the target to the density of the draws, up to a constant.
    - `efficiency`: r, effective over actual number of draws.
    """
    columns = zip(log_ratios.T, efficiency, strict=True)
    smoothed = [_column(ratios, float(rate)) for ratios, rate in columns]
    weights = np.stack([weights for weights, _ in smoothed], axis=1)
    return weights, np.array([shape for _, shape in smoothed])


def largest_shape(num_draws: int) -> float:
    r"""Return the largest $\hat k$ with which weights are reliable."""
    return min(1.0 - 1.0 / math.log10(max(num_draws, 11)), 0.7)


def fit_pareto(tail: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Return shape and scale of a generalised Pareto distribution.

    It is the posterior mean of Zhang and Stephens; the shape is drawn to 1/2 by ten
    pseudo-observations.

    **Arguments:**

    - `tail`: positive numbers in ascending order.
    """
    num = len(tail)
    size = 30 + int(math.sqrt(num))
    grid = 1.0 - np.sqrt(size / (np.arange(1, size + 1) - 0.5))
    grid = grid / (SCALE_PRIOR * tail[int(num / 4 + 0.5) - 1]) + 1.0 / tail[-1]
    shapes = np.log1p(-grid[:, None] * tail).mean(axis=1)
    profile = num * (np.log(-grid / shapes) - shapes - 1.0)
    slope = float(grid @ scipy.special.softmax(profile))
    shape = float(np.log1p(-slope * tail).mean())
    scale = -shape / slope
    return (num * shape + SHAPE_PRIOR * 0.5) / (num + SHAPE_PRIOR), scale


def _column(ratios, efficiency):
    logs = ratios - ratios.max()
    num = len(logs)
    count = math.ceil(min(0.2 * num, 3.0 * math.sqrt(num / efficiency)))
    order = np.argsort(logs, kind="stable")
    shape = np.inf
    if count >= LEAST_TAIL:
        cutoff = logs[order[-count - 1]]
        tail = order[-count:][logs[order[-count:]] > cutoff]
        beyond = np.exp(logs[tail]) - np.exp(cutoff)
        if len(tail) >= LEAST_TAIL and beyond[0] > 0:
            shape, scale = fit_pareto(beyond)
            levels = (np.arange(len(tail)) + 0.5) / len(tail)
            quantiles = scale * np.expm1(-shape * np.log1p(-levels)) / shape
            # No weight is larger than the largest ratio.
            logs[tail] = np.minimum(np.log(quantiles + np.exp(cutoff)), 0.0)
        elif len(tail) == 0 or np.ptp(logs) == 0:
            shape = -np.inf  # all ratios are equal, as of a row without information
    return logs - scipy.special.logsumexp(logs), shape
