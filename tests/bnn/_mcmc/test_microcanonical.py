"""Microcanonical chains: the bias of their draws, and what the tuning finds."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn
from jaxprob.bnn._mcmc.microcanonical_tuning import (
    Windows,
    adapt_step_size,
    collect_moments,
    take_mass,
    tuning_init,
)
from jaxprob.testing import LinearGaussian


@pytest.fixture(scope="module")
def problem():
    return LinearGaussian.random(key=jax.random.key(0), num_data=40, dim=9)


def draws_of(posterior):
    draws = posterior.draws
    return np.concatenate([draws.weight[:, :, 0], draws.bias], axis=-1)


def chains(problem, **settings):
    method = bnn.MCLMC(problem.log_joint(), **settings)
    model = problem.model(key=jax.random.key(1))
    data = (problem.x, problem.y)
    return bnn.run_chains(method, model, data, key=jax.random.key(2), progress=False)


def errors(problem, posterior):
    """Largest bias of a mean in standard deviations, and ratios of deviations."""
    draws, sd = draws_of(posterior), np.sqrt(np.diag(problem.covariance))
    centred = (draws - np.asarray(problem.mean)) / sd
    return np.abs(centred.mean((0, 1))), centred.std((0, 1)), bnn.ess(centred)


@pytest.mark.slow
@pytest.mark.parametrize("diagonal", [True, False])
def test_the_bias_is_below_a_tenth_of_a_standard_deviation(problem, diagonal):
    posterior = chains(
        problem, num_warmup=1500, num_draws=600, thin=10, diagonal=diagonal
    )
    bias, spread, ess = errors(problem, posterior)
    assert ess.min() > 100
    assert np.all(bias < 0.1 + 5.0 / np.sqrt(ess))
    assert np.all(np.abs(spread - 1.0) < 0.1 + 5.0 / np.sqrt(2.0 * ess))
    # The energy error is the one that was asked for, for each dimension.
    change = np.asarray(posterior.sample_stats["energy_change"])
    found = np.mean(change**2) / (10 * 5e-4)
    assert 0.2 < found < 5.0
    assert not posterior.sample_stats["divergent"].any()


@pytest.mark.parametrize("variance", [1e-4, 1e-1])
def test_the_step_size_gives_the_energy_variance_that_is_wanted(getkey, variance):
    """For an error that is proportional to the third power of the step."""
    start = tuning_init(jnp.zeros(10), step_size=0.01, trajectory_length=None)

    def step(tuning, noise):
        change = 5.0 * tuning.step_size**3 * noise * 10.0**0.5
        wide = (tuning.step_size > 2.0).astype(float)
        tuning = adapt_step_size(tuning, change, wide, jnp.asarray(variance))
        return tuning, tuning.step_size

    _, sizes = jax.lax.scan(step, start, jax.random.normal(getkey(), (4000,)))
    found = np.asarray(sizes[1000:])
    expected = (variance / 25.0) ** (1.0 / 6.0)
    # The mean of weighted squares is not the mean of squares: within a tenth.
    assert abs(found.mean() / expected - 1.0) < 0.1
    assert found.std() < 0.1 * expected


def test_a_step_that_is_not_finite_bounds_the_step_size():
    tuning = tuning_init(jnp.zeros(4), step_size=0.5, trajectory_length=None)
    zero, wanted = jnp.zeros(()), jnp.asarray(1e-3)
    tuning = adapt_step_size(tuning, zero, jnp.ones(()), wanted)
    assert np.isclose(tuning.step_size, 0.4)
    # An error far below the wanted one would allow a much larger step.
    tuning = adapt_step_size(tuning, zero + 1e-6, zero, wanted)
    assert np.isclose(tuning.step_size, 0.4)


def test_the_warm_up_is_divided_and_its_moments_are_those_of_the_path(getkey):
    assert Windows.of(1000) == (400, 800, 1000)
    assert Windows.of(0) == (0, 0, 0)
    noise = jax.random.normal(getkey(), (50, 2))
    positions = 1e3 + jnp.asarray([[0.1, 10.0]]) * noise
    tuning = tuning_init(positions[0], step_size=0.3, trajectory_length=None)
    zero = jnp.zeros(())
    for position in positions:
        tuning = collect_moments(tuning, position, zero)
    # A step that was undone counts for nothing.
    tuning = collect_moments(tuning, positions[0] + 1e6, jnp.ones(()))
    variance = np.var(np.asarray(positions, np.float64), axis=0)
    taken = take_mass(tuning, diagonal=True, trajectory_length=None)
    np.testing.assert_allclose(taken.inverse_mass, variance, rtol=2e-3)
    np.testing.assert_allclose(taken.trajectory_length, np.sqrt(2.0), rtol=1e-6)
    spread = np.sqrt(variance.sum())
    np.testing.assert_allclose(taken.step_size, 0.3 * np.sqrt(2.0) / spread, rtol=2e-3)
    plain = take_mass(tuning, diagonal=False, trajectory_length=None)
    np.testing.assert_array_equal(plain.inverse_mass, 1.0)
    np.testing.assert_allclose(plain.trajectory_length, spread, rtol=2e-3)
    fixed = take_mass(tuning, diagonal=True, trajectory_length=7.0)
    assert float(fixed.trajectory_length) == 7.0


class Positive(eqx.Module):
    w: jax.Array

    def __call__(self, x):
        return jnp.log(self.w).sum() + 0.0 * x  # NaN where one is negative


@pytest.mark.slow
def test_a_step_off_the_domain_is_undone_and_counted():
    joint = bnn.LogJoint(
        lambda f: dist.Normal(f, 1.0), bnn.IsotropicNormal(1.0), num_data=1
    )
    method = bnn.MCLMC(
        joint, num_warmup=0, num_draws=200, thin=1, step_size=0.3, initial="model"
    )
    with pytest.warns(UserWarning, match="transitions diverged"):
        posterior = bnn.run_chains(
            method,
            Positive(jnp.ones(2)),
            (jnp.zeros(1), jnp.zeros(1)),
            key=jax.random.key(0),
            progress=False,
        )
    assert np.all(np.asarray(posterior.draws.w) > 0.0)
    assert posterior.sample_stats["divergent"].any()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"energy_variance": 0.0}, "energy_variance=0"),
        ({"initial_energy_variance": -1.0}, "initial_energy_variance=-1"),
        ({"trajectory_length": 0.0}, "trajectory_length=0"),
        ({"step_size": 0.0}, "step_size=0"),
        ({"thin": 0}, "thin=0"),
    ],
)
def test_bad_settings_are_named(problem, settings, match):
    with pytest.raises(ValueError, match=match):
        bnn.MCLMC(problem.log_joint(), **settings)


def test_one_dimension_and_minibatches_are_rejected(problem):
    one = eqx.nn.Linear(1, "scalar", use_bias=False, key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least two random numbers"):
        bnn.MCLMC(problem.log_joint()).init(one, key=jax.random.key(0))
    method = bnn.MCLMC(problem.log_joint())
    model, data = problem.model(key=jax.random.key(1)), (problem.x, problem.y)
    with pytest.raises(ValueError, match="MCLMC needs all rows in each"):
        bnn.run_chains(method, model, data, key=jax.random.key(0), batch_size=4)
