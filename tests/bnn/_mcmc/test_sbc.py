"""Simulation-based calibration of every sampler, and a posterior that it catches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.certificate import samplers
from jaxprob.testing import LinearGaussian, rank_p_values, simulated_ranks

SIMS, DRAWS = 500, 15


@pytest.fixture(scope="module")
def problem():
    return LinearGaussian.random(key=jax.random.key(3), num_data=12, dim=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["NUTS", "HMC", "MCLMC", "AdjustedMCLMC", "SGLD", "SGHMC"]
)
def test_the_truth_ranks_uniformly_among_the_draws(problem, name):
    """Three parameters: chi-square by five s.e., and all but one inside the band.

    The band's 10,000 simulations resolve a p-value of 1e-4, which one comparison of
    10,000 is below; two of three below 1e-3 are one of 300,000.
    """
    method = samplers(problem.log_joint(), DRAWS)[name]
    found = simulated_ranks(method, problem, key=jax.random.key(5), num_sims=SIMS)
    chi2, band = zip(
        *(rank_p_values(found[:, i], DRAWS) for i in range(3)), strict=True
    )
    assert min(chi2) > 1e-6
    assert sorted(band)[1] > 1e-3
    # Each parameter's band would let a variance pass that is a third too small; in all
    # ranks together it is six standard errors off.
    level = (found + 0.5) / (DRAWS + 1)
    spread = np.mean((level - 0.5) ** 2, axis=1)
    uniform = (1 - (DRAWS + 1) ** -2) / 12
    error = spread.std() / np.sqrt(SIMS)
    assert abs(spread.mean() - uniform) < 5 * error
    assert np.all(np.abs(level.mean(0) - 0.5) < 5 * level.std(0) / np.sqrt(SIMS))


@pytest.mark.slow
def test_a_factorised_posterior_is_caught_by_its_narrow_ranks():
    """The best mean-field Gaussian, in closed form: too many ranks at both ends."""
    first, second = jax.random.normal(jax.random.key(1), (2, 12))
    x = jnp.stack([first, first + 0.3 * second], axis=1)
    problem = LinearGaussian(x, jnp.zeros(12))

    def one(key):
        data_key, draw_key = jax.random.split(key)
        w, y = problem.simulate(key=data_key)
        own = LinearGaussian(problem.x, y, problem.noise, problem.prior_scale)
        noise = jax.random.normal(draw_key, (DRAWS, 3))
        draws = own.mean[None] + jnp.sqrt(own.mean_field_variance)[None] * noise
        return jnp.sum(draws < w[None], axis=0)

    keys = jax.random.split(jax.random.key(5), SIMS)
    found = np.asarray(jax.jit(jax.vmap(one))(keys))
    narrow = int(np.argmin(problem.mean_field_variance / np.diag(problem.covariance)))
    counts = np.bincount(found[:, narrow], minlength=DRAWS + 1)
    assert max(rank_p_values(found[:, narrow], DRAWS)) < 1e-3
    assert min(counts[0], counts[-1]) > 1.5 * SIMS / (DRAWS + 1)


@pytest.mark.slow
def test_p_values_of_uniform_ranks_are_uniform():
    rng = np.random.default_rng(0)
    values = np.array([rank_p_values(rng.integers(0, 16, 500), 15) for _ in range(100)])
    assert np.all(np.abs(values.mean(0) - 0.5) < 5 * np.sqrt(1 / 12 / 100))
    with pytest.raises(ValueError, match="ranks are from 0 to 16; among 15"):
        rank_p_values(np.array([0, 16]), 15)
