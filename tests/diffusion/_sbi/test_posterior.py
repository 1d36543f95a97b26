"""The posterior of a simulator, against exact ones."""

from typing import Any

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
    SimulatorPosterior,
    Units,
    fit_posterior,
    simulate,
)
from jaxprob.diffusion._sbi.composed import information
from jaxprob.diffusion._sbi.exchangeable import exchangeable_rows
from jaxprob.diffusion._sbi.observation_scaler import ObservationScaler
from jaxprob.diffusion._sbi.residual import LinearResidual

KEY = jax.random.key(0)


class Exact(AbstractDenoiser):
    """The denoiser of N(cond, v): exact for a Gaussian posterior."""

    variance: jax.Array
    schedule: EDM = EDM()

    def denoise(self, x, level, cond=None, *, key=None):
        v, s2 = self.variance.astype(x.dtype), level**2
        return (v * x + s2 * cond) / (v + s2)

    def standardised(self):
        return self, Units()


class Shrunk(AbstractEncoder):
    """The mean of what a regression leaves of a posterior's mean, a share of x."""

    share: jax.Array
    size: int = eqx.field(default=1, static=True)

    def __call__(self, x):
        weight, offset, root = REGRESSION
        return (self.share * x - weight * x - offset) / root

    def summary(self, x):
        return x


# Of a prior and a simulator for which it is not the best one, so that each of its
# parts is seen.
REGRESSION = (0.5, 0.25, 2.0)


def exact_posterior(prior, variance):
    """The posterior of x = u + noise, u standard normal, theta = T(u)."""
    x = np.zeros((4, 1)) + np.array([[-1.0], [1.0], [-1.0], [1.0]])
    weight, offset, root = REGRESSION
    left = jnp.array([variance / (1.0 + variance) / root**2])
    return SimulatorPosterior(
        ParameterSpace(prior),
        ObservationScaler.fitted(x),  # mean 0 and standard deviation 1: no change
        LinearResidual(np.array([[weight]]), np.array([offset]), np.array([[root]])),
        Shrunk(jnp.array([1.0 / (1.0 + variance)])),
        Averaged(Exact(left), own_conditions=True),
    )


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("prior", "to_u", "jacobian"),
    [
        (dist.Normal(0.0, 1.0), lambda t: t, lambda t: 0.0),
        (dist.LogNormal(0.0, 1.0), np.log, np.log),
    ],
)
def test_the_density_is_exact_with_an_exact_denoiser(double, prior, to_u, jacobian):
    posterior = exact_posterior(prior, 0.5)
    theta = np.asarray(prior.sample(KEY, (6,)), np.float64)
    x = np.array([0.75])
    found = posterior.log_prob(theta, x, rtol=1e-9, atol=1e-9)
    # The density is that of data with the noise of the schedule's first level.
    noise = 0.002 * REGRESSION[2]
    normal = dist.Normal(0.75 / 1.5, (0.5 / 1.5 + noise**2) ** 0.5)
    exact = normal.log_prob(to_u(theta)) - jacobian(theta)
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_draws_are_those_of_the_exact_posterior():
    posterior = exact_posterior(dist.LogNormal(0.0, 1.0), 0.5)
    draws = posterior.sample(np.array([0.75]), key=KEY, num_samples=4000)
    u, sd = np.log(draws), (0.5 / 1.5) ** 0.5
    assert abs(u.mean() - 0.5) < 5.0 * sd / 4000**0.5
    assert abs(u.std() / sd - 1.0) < 5.0 / 8000**0.5
    each = posterior.sample_each(np.array([[0.75], [-0.75]]), key=KEY, num_samples=2000)
    assert each.shape == (2, 2000)
    means = np.log(each).mean(axis=1)
    np.testing.assert_allclose(means, [0.5, -0.5], atol=5.0 * sd / 2000**0.5)


def test_several_observations_give_the_conjugate_posterior():
    posterior = exact_posterior(dist.LogNormal(0.0, 1.0), 0.5)
    x = np.array([[0.75], [-0.5], [0.9], [0.6]])
    draws = posterior.sample_given_all(x, key=KEY, num_samples=4000)
    u = np.log(draws)
    # Precision 1 + 4 / 0.5, to which each observation adds x / 0.5.
    sd = 9.0**-0.5
    assert abs(u.mean() - x.sum() / 0.5 / 9.0) < 5.0 * sd / 4000**0.5
    # Each posterior's precision is known from 1,000 draws.
    assert abs(u.std() / sd - 1.0) < 0.06
    one = np.log(posterior.sample_given_all(x[:1], key=KEY, num_samples=2000))
    assert abs(one.mean() - 0.5) < 5.0 * (1.0 / 3.0 / 2000) ** 0.5


def test_a_posterior_wider_than_the_prior_has_no_information():
    rng = np.random.default_rng(0)
    precision = np.array([[2.0, 0.5], [0.5, 1.0]])
    root = np.linalg.cholesky(np.linalg.inv(precision))
    wide = rng.normal(size=(20_000, 2)) @ (1.5 * root).T
    narrow = rng.normal(size=(20_000, 2)) @ (0.5 * root).T
    draws = jnp.asarray(np.stack([wide, narrow]), jnp.float32)
    found = information(draws, jnp.asarray(precision, jnp.float32))
    np.testing.assert_allclose(found[0], np.zeros((2, 2)), atol=1e-5)
    np.testing.assert_allclose(found[1], 3.0 * precision, rtol=0.1, atol=0.1)


def test_outside_of_the_support_the_density_is_minus_infinity():
    posterior = exact_posterior(dist.LogNormal(0.0, 1.0), 0.5)
    found = posterior.log_prob(np.array([1.0, -1.0]), np.array([0.75]))
    assert np.isfinite(found[0])
    assert found[1] == -np.inf


def test_an_observation_beyond_the_simulations_is_warned_of():
    posterior = exact_posterior(dist.Normal(0.0, 1.0), 0.5)
    with pytest.warns(UserWarning, match=r"column 0: 7 is outside of \[-1, 1\]"):
        posterior.condition(np.array([7.0]))
    with pytest.raises(ValueError, match="an observation of shape"):
        posterior.condition(np.zeros(2))


PRIOR = {"m": dist.Normal(jnp.zeros(2), 1.0)}
SMALL = {
    "num_steps": 800,
    "num_rounds": 4,
    "num_members": 2,
    "width": 32,
    "depth": 2,
    "learning_rate": 3e-3,
    "weight_decay": 0.0,
    "progress": False,
}


def gaussian(theta, *, key):
    return theta["m"] + 0.5 * jax.random.normal(key, (2,))


@pytest.mark.slow
def test_training_approaches_a_conjugate_posterior():
    sims = simulate(PRIOR, gaussian, key=KEY, num_simulations=5000, progress=False)
    posterior, history = fit_posterior(PRIOR, sims, key=KEY, **SMALL)
    assert history[-1]["step"] == 800
    assert min(h["val_loss"] for h in history) < history[0]["val_loss"]
    x = np.array([1.0, -0.5], np.float32)
    draws = posterior.sample(x, key=KEY, num_samples=2000)["m"]
    sd = 0.2**0.5
    # A network of 5,000 pairs knows the mean to about a tenth of a deviation.
    assert np.abs(np.mean(draws, axis=0) - x / 1.25).max() < 0.2 * sd
    assert np.abs(draws.std(axis=0) / sd - 1.0).max() < 0.15
    z = (np.asarray(draws[:100]) - x[None] / 1.25) / sd
    exact = -0.5 * (z**2).sum(-1) - 2.0 * np.log(sd * np.sqrt(2.0 * np.pi))
    found = posterior.log_prob({"m": draws[:100]}, x)
    assert np.abs(found - exact).mean() < 0.15


def test_what_a_regression_leaves_of_a_gaussian_posterior_is_standard_normal():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(20_000, 2))
    mixed = np.array([[1.0, 0.3, 0.0], [0.0, 1.0, -0.5]])
    x = u @ mixed + np.array([0.1, 0.2, 0.3]) * rng.normal(size=(20_000, 3)) + 5.0
    linear = LinearResidual.fitted(u, x)
    v = np.asarray(linear.residual(jnp.asarray(u), jnp.asarray(x)))
    np.testing.assert_allclose(
        linear.coordinates(jnp.asarray(v), jnp.asarray(x)), u, atol=1e-4
    )
    # The exact posterior, of the precision 1 + M S^-1 M^T.
    noise = np.diag([0.1, 0.2, 0.3]) ** 2
    covariance = np.linalg.inv(np.eye(2) + mixed @ np.linalg.inv(noise) @ mixed.T)
    found = linear.root @ linear.root.T
    np.testing.assert_allclose(found, covariance, rtol=0.04, atol=6e-4)
    weight = covariance @ mixed @ np.linalg.inv(noise)
    np.testing.assert_allclose(linear.weight, weight, atol=0.02)
    half = 0.5 * np.linalg.slogdet(covariance)[1]
    assert abs(linear.log_volume - half) < 0.03
    assert np.abs(np.cov(np.asarray(v).T) - np.eye(2)).max() < 1e-3


def test_features_of_noise_are_left_out_by_the_ridge():
    rng = np.random.default_rng(0)
    u, x = rng.normal(size=(100, 1)), rng.normal(size=(100, 90))
    linear = LinearResidual.fitted(u, x)
    assert np.abs(linear.weight).max() < 0.03
    assert abs(linear.root[0, 0] - u.std()) < 0.1


def test_blocks_that_may_be_exchanged_are_found():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(3000, 2))
    noise = rng.standard_t(2, size=(3000, 3, 2))
    blocks = u[:, None] + np.exp(u[:, None, :1]) * noise
    x = blocks.reshape(3000, 6)
    assert exchangeable_rows(u, x) == 3
    assert exchangeable_rows(u[:900], x[:900]) == 1  # too few to know
    # The last block has more noise, or is that of another parameter.
    louder = blocks * np.array([1.0, 1.0, 1.3])[:, None]
    assert exchangeable_rows(u, louder.reshape(3000, 6)) == 1
    swapped = np.concatenate([blocks[:, :2], blocks[:, 2:, ::-1]], axis=1)
    assert exchangeable_rows(u, swapped.reshape(3000, 6)) == 1
    # A series: neighbours are nearer than the first and the last.
    walk = np.cumsum(rng.normal(size=(3000, 5)), axis=1)
    walk = walk / np.sqrt(np.arange(1.0, 6.0))
    assert exchangeable_rows(u, walk) == 1


@pytest.mark.slow
def test_a_pilot_chooses_the_network_of_sets_and_the_decay():
    def simulator(theta, *, key):
        scale = jnp.exp(2.0 * theta["m"][0])
        return scale * jax.random.normal(key, (6,))

    sims = simulate(PRIOR, simulator, key=KEY, num_simulations=1500, progress=False)
    settings: Any = SMALL | {"num_steps": 600, "num_rounds": 1, "num_members": 1}
    settings["weight_decay"] = (0.0, 300.0)
    posterior, history = fit_posterior(PRIOR, sims, key=KEY, **settings)
    choices = [(entry["blocks"], entry["weight_decay"]) for entry in history]
    assert choices[:4] == [(1, 0.0), (1, 300.0), (6, 0.0), (6, 300.0)]
    losses = [entry["val_loss"] for entry in history[:4]]
    assert choices[4] == choices[int(np.argmin(losses))] == (6, 0.0)
    assert [entry["step"] for entry in history] == [300.0] * 4 + [600.0]
    one, other = posterior.condition(sims.x[0]), posterior.condition(sims.x[0][::-1])
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["set", "series"])
def test_observations_of_two_axes_are_encoded(encoder):
    def simulator(theta, *, key):
        return theta["m"][:1][None] + jax.random.normal(key, (6, 1))

    sims = simulate(PRIOR, simulator, key=KEY, num_simulations=300, progress=False)
    tiny: Any = SMALL | {"num_steps": 4, "num_rounds": 1}
    with pytest.raises(ValueError, match="encoder='set'"):
        fit_posterior(PRIOR, sims, key=KEY, **tiny)
    posterior, _ = fit_posterior(PRIOR, sims, key=KEY, encoder=encoder, **tiny)
    x = sims.x[0]
    cond, other = posterior.condition(x), posterior.condition(x[::-1])
    same = np.allclose(cond, other, rtol=1e-4, atol=1e-5)
    assert same is (encoder == "set")


@pytest.mark.parametrize(
    ("theta", "x", "message"),
    [
        ({"m": np.zeros((200, 2))}, np.zeros((100, 1)), "one observation for each"),
        ({"m": np.zeros((200, 3))}, np.zeros((200, 1)), "shape"),
        ({"m": np.zeros((200, 2))}, np.full((200, 1), np.nan), "missing=True"),
    ],
)
def test_pairs_that_do_not_fit_are_rejected(theta, x, message):
    with pytest.raises(ValueError, match=message):
        fit_posterior(PRIOR, Simulations(theta, x), key=KEY, **SMALL)


def test_parameters_of_another_prior_are_rejected():
    sims = Simulations(np.array([0.5] * 199 + [2.0]), np.zeros((200, 1)))
    with pytest.raises(ValueError, match="row 199 is outside"):
        fit_posterior(dist.Uniform(0.0, 1.0), sims, key=KEY, **SMALL)
