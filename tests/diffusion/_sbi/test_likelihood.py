"""The likelihood of a simulator, against normal distributions."""

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob.diffusion import (
    EDM,
    AbstractDenoiser,
    AbstractEncoder,
    Averaged,
    ParameterSpace,
    Simulations,
    SimulatorLikelihood,
    SimulatorPosterior,
    Units,
    fit_likelihood,
)
from jaxprob.diffusion._sbi.observation_scaler import ObservationScaler
from jaxprob.diffusion._sbi.residual import LinearResidual


class Standard(AbstractDenoiser):
    """The denoiser of a standard normal distribution, for each condition."""

    one: jax.Array
    schedule: EDM = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        return self.one * x / (1.0 + level**2)

    def standardised(self):
        return self, Units()


class Itself(AbstractEncoder):
    one: jax.Array
    size: int = eqx.field(default=1, static=True)

    def __call__(self, x):
        return self.one * x

    def summary(self, x):
        return x


MEAN, SCALE = 0.3, 2.0


@pytest.fixture(scope="module")
def exact():
    """x = log(theta) + N(0, 0.5^2) with theta ~ LogNormal(0, 1)."""
    # u = MEAN + SCALE z, and x = u + 0.5 v.
    z = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    observations = SimulatorPosterior(
        ParameterSpace(dist.Normal(jnp.zeros(1), 1.0)),
        ObservationScaler.fitted(z),
        LinearResidual(np.array([[SCALE]]), np.array([MEAN]), np.array([[0.5]])),
        Itself(jnp.ones(1)),
        Averaged(Standard(jnp.ones(1)), own_conditions=True),
    )
    space = ParameterSpace(dist.LogNormal(jnp.zeros(1), 1.0))
    return SimulatorLikelihood(space, np.array([MEAN]), np.array([SCALE]), observations)


@pytest.mark.slow
def test_the_joint_density_and_its_gradient_are_exact(exact):
    x = np.array([[0.4], [-0.2], [1.0]])
    density = jax.jit(jax.value_and_grad(exact.log_joint(x)))
    value, slope = density(jnp.array([0.7]))
    normal = dist.Normal(0.7, 0.5).log_prob(x).sum() + dist.Normal().log_prob(0.7)
    assert abs(value - normal) < 1e-3
    assert abs(slope[0] - ((x - 0.7).sum() / 0.25 - 0.7)) < 1e-2
    found = exact.log_prob(x, jnp.exp(jnp.array([0.7])))
    np.testing.assert_allclose(
        found, dist.Normal(0.7, 0.5).log_prob(x)[:, 0], atol=1e-3
    )


@pytest.mark.slow
def test_nuts_draws_from_the_conjugate_posterior(exact):
    x = np.array([[0.4], [-0.2], [1.0]])
    density = exact.log_joint(x, rtol=1e-3, atol=1e-3)
    nuts = blackjax.nuts(density, step_size=0.5, inverse_mass_matrix=jnp.ones(1))
    state = nuts.init(jnp.array([0.5]))

    def step(state, key):
        state, _ = nuts.step(key, state)
        return state, state.position[0]

    keys = jax.random.split(jax.random.key(0), 600)
    _, u = jax.jit(lambda state: jax.lax.scan(step, state, keys))(state)
    precision = 1.0 + 3.0 / 0.25
    assert abs(u.mean() - x.sum() / 0.25 / precision) < 0.06
    assert abs(u.std() * precision**0.5 - 1.0) < 0.15


def test_counts_have_no_likelihood():
    sims = Simulations(np.ones(200), np.ones((200, 3), int))
    with pytest.raises(ValueError, match="Counts and images have no density"):
        fit_likelihood(dist.LogNormal(0.0, 1.0), sims, key=jax.random.key(0))


@pytest.mark.slow
def test_training_approaches_the_likelihood():
    theta = np.exp(np.random.default_rng(0).normal(size=(3000, 1)))
    noise = np.random.default_rng(1).normal(size=(3000, 1))
    x = np.log(theta) + 0.5 * noise
    prior = dist.LogNormal(jnp.zeros(1), 1.0)
    likelihood, _ = fit_likelihood(
        prior,
        Simulations(theta, x),
        key=jax.random.key(0),
        num_steps=200,
        num_rounds=1,
        num_members=1,
        width=16,
        depth=1,
        weight_decay=1.0,
        progress=False,
    )
    rows = np.linspace(-0.5, 1.5, 9)[:, None]
    found = likelihood.log_prob(rows, np.exp([0.5]))
    exact = dist.Normal(0.5, 0.5).log_prob(rows)[:, 0]
    assert np.abs(found - exact).mean() < 0.15
