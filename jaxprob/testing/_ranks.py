"""Simulation-based calibration: ranks of the true weights among posterior draws."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Integer

from .._random.keys import example_keys, step_key
from .._types import PRNGKey
from ..bnn import AbstractChains
from ._linear_gaussian import LinearGaussian


def simulated_ranks(
    method: AbstractChains,
    problem: LinearGaussian,
    *,
    key: PRNGKey,
    num_sims: int = 500,
) -> Integer[np.ndarray, "sims params"]:
    """Ranks of the true weights among a sampler's draws, over simulated data sets.

    Each simulation draws weights from the prior, targets at the problem's inputs, and
    all draws of one chain. All simulations run in one vectorised program.

    **Arguments:**

    - `method`: a sampler of `problem.log_joint()` with one chain, whose draws are far
        enough apart to be independent, such as NUTS or HMC with a fixed step size
        (`num_warmup=0`) and `thin`.
    - `problem`: its inputs, noise and prior are used; its targets are not.
    - `key`: key of the simulations and chains.
    - `num_sims`: number of simulations.

    **Returns:** ranks from 0 to `method.num_draws`, to be given to `rank_p_values`.
    """
    model_key, sims_key = jax.random.split(key)
    model = problem.model(key=model_key)

    def one(key):
        data_key, init_key, run_key = jax.random.split(key, 3)
        w, y = problem.simulate(key=data_key)
        arrays, static = eqx.partition(method.init(model, key=init_key), eqx.is_array)

        def body(step, arrays):
            state = eqx.combine(arrays, static)
            state, _ = method.update(state, (problem.x, y), key=step_key(run_key, step))
            return eqx.filter(state, eqx.is_array)

        arrays = jax.lax.fori_loop(0, method.num_steps, body, arrays)
        return jnp.sum(arrays.draws[0] < w[None], axis=0)

    return np.asarray(jax.jit(jax.vmap(one))(example_keys(sims_key, num_sims)))


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
