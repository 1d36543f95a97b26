"""Calibration of a posterior over simulations: ranks, and tests of accuracy (TARP)."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Integer


def posterior_ranks(
    truth: Float[Array | np.ndarray, "sims params"],
    draws: Float[Array | np.ndarray, "draws sims params"],
) -> Integer[np.ndarray, "sims params"]:
    """Return the rank of each true parameter among the draws given its observation.

    If the truth comes from the prior and the observation from the simulator, ranks are
    uniform for the exact posterior, which `rank_p_values` tests for each parameter.

    **Arguments:**

    - `truth`: parameters of each simulation.
    - `draws`: of the posterior given each simulation's observation, independent.

    **Returns:** ranks from 0 to the number of draws.

    **Raises:** `ValueError` for shapes that do not fit, or NaN.
    """
    truth, draws = _checked(truth, draws)
    return np.sum(draws < truth[None], axis=0)


def rank_p_values(
    ranks: Integer[np.ndarray, " sims"], num_draws: int, *, seed: int = 0
) -> tuple[float, float]:
    r"""Return p-values of the hypothesis that ranks are uniform on $0, \dots, L$.

    For w from the prior, data from the model given w, and L draws from the posterior
    given the data, the rank of w among the draws is uniform. Many ranks at both ends
    indicate a posterior that is too narrow, many in the middle one that is too wide.

    References: *Validating Bayesian inference algorithms with simulation-based
    calibration*, Talts, Betancourt, Simpson, Vehtari and Gelman, 2018,
    https://arxiv.org/abs/1804.06788; for the second value *Graphical test for discrete
    uniformity and its applications*, Säilynoja, Bürkner and Vehtari, 2022,
    https://arxiv.org/abs/2103.10522.

    ```python
    chi2, band = rank_p_values(ranks, num_draws=15)
    ```

    **Arguments:**

    - `ranks`: one for each simulation, for one parameter.
    - `num_draws`: L.
    - `seed`: seed of the simulated band.

    **Returns:** the p-value of the chi-square test on all ranks, and that of the
    largest deviation of the distribution function in standard deviations of each point,
    from 10,000 simulated sets of uniform ranks.
    """
    ranks = np.asarray(ranks)
    if ranks.min() < 0 or ranks.max() > num_draws:
        raise ValueError(
            f"ranks are from {ranks.min()} to {ranks.max()}; among {num_draws} draws "
            f"they are 0, ..., {num_draws}"
        )
    counts = np.bincount(ranks, minlength=num_draws + 1)
    chi2 = float(scipy.stats.chisquare(counts).pvalue)
    uniform = np.random.default_rng(seed).multinomial(
        len(ranks), np.full(num_draws + 1, 1 / (num_draws + 1)), size=10_000
    )
    own, simulated = _deviation(counts), _deviation(uniform)
    return chi2, float(np.mean(simulated >= own))


def _deviation(counts):
    total = counts.sum(-1, keepdims=True)
    share = np.cumsum(counts, -1)[..., :-1] / total
    level = np.arange(1, counts.shape[-1]) / counts.shape[-1]
    spread = np.sqrt(level * (1 - level) / total)
    return np.max(np.abs(share - level) / spread, axis=-1)


class Tarp(NamedTuple):
    """Coverage of random regions, and the p-value of its being as stated.

    **Fields:**

    - `levels`: credibility levels.
    - `coverage`: how often the region of a level holds the truth.
    - `p_value`: of the Kolmogorov-Smirnov test that they are equal.
    - `shares`: of each simulation, the level at which its region reaches the truth.
    """

    levels: Float[np.ndarray, " levels"]
    coverage: Float[np.ndarray, " levels"]
    p_value: float
    shares: Float[np.ndarray, " sims"]


def tarp(
    truth: Float[Array | np.ndarray, "sims params"],
    draws: Float[Array | np.ndarray, "draws sims params"],
    *,
    seed: int = 0,
    num_levels: int = 20,
) -> Tarp:
    r"""Coverage of regions round random points, of all parameters together.

    For each simulation a reference point is drawn, and the share of draws nearer to it
    than the truth is. For the exact posterior that share is uniform. A posterior that
    ignores the observation passes too (as it does the ranks' test): a two-sample test
    or log-densities show it.

    Reference: *Sampling-Based Accuracy Testing of Posterior Estimators for General
    Inference*, Lemos, Coogan, Hezaveh and Perreault-Levasseur, 2023,
    https://arxiv.org/abs/2302.03026.

    **Arguments:**

    - `truth`, `draws`: as in `posterior_ranks`.
    - `seed`: of the reference points.
    - `num_levels`: number of levels in the curve.

    **Raises:** `ValueError` for shapes that do not fit, or NaN.
    """
    truth, draws = _checked(truth, draws)
    rng = np.random.default_rng(seed)
    # In units of the spread of all truths, which no single posterior chooses.
    scale = np.maximum(truth.std(axis=0), np.finfo(float).tiny)
    low, high = truth.min(axis=0), truth.max(axis=0)
    points = rng.uniform(low, high, size=truth.shape)
    far = np.linalg.norm((truth - points) / scale, axis=-1)
    distances = np.linalg.norm((draws - points[None]) / scale, axis=-1)
    below = np.sum(distances < far[None], axis=0)
    # Between its neighbours' shares, so that few draws leave no steps.
    shares = (below + rng.uniform(size=len(truth))) / (len(draws) + 1)
    levels = np.linspace(0.0, 1.0, num_levels + 1)[1:]
    coverage = np.mean(shares[None] < levels[:, None], axis=1)
    p_value = float(scipy.stats.kstest(shares, "uniform").pvalue)
    return Tarp(levels, coverage, p_value, shares)


def _checked(truth, draws):
    truth, draws = np.asarray(truth, float), np.asarray(draws, float)
    if truth.ndim != 2 or draws.ndim != 3 or draws.shape[1:] != truth.shape:
        raise ValueError(
            f"truth has shape {truth.shape} and draws {draws.shape}: give "
            "(simulations, parameters) and (draws, simulations, parameters)"
        )
    for name, array in (("truth", truth), ("draws", draws)):
        if not np.isfinite(array).all():
            index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(f"{name}[{index}] is {array[index]}: leave out that row")
    return truth, draws
