"""Posterior denoisers are denoisers: samplers, densities, batches, gradients."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import Layout
from jaxprob.diffusion import (
    DDIM,
    DPS,
    EDM,
    MMPS,
    TMPD,
    DiffPIR,
    ExpAB,
    Measured,
    Observation,
    ODESampler,
    PiGDM,
    RePaint,
    Replacement,
    SDESampler,
    condition,
    log_prob,
    sample,
)
from jaxprob.testing import (
    GaussianMixture,
    GaussianMixtureDenoiser,
    check_denoiser,
    eight_gaussians,
)

METHODS = {
    "MMPS": MMPS,
    "MMPS by CG": functools.partial(MMPS, max_dense=0),
    "TMPD": TMPD,
    "TMPD diagonal": functools.partial(TMPD, diagonal=True),
    "PiGDM": PiGDM,
    "DPS": DPS,
    "DiffPIR": DiffPIR,
    "Replacement": Replacement,
}
SAMPLERS = {
    "ExpAB": ExpAB(12),
    "DDIM": DDIM(60, eta=1.0),
    "ODE": ODESampler(),
    "SDE": SDESampler(60),
    "RePaint": RePaint(60, num_resamples=2),
}
Y, NOISE = np.array([1.2], np.float32), 0.2


def first(x):
    return x[:1]


def observation():
    return Observation(Y, first, noise=NOISE, linear=True, shape=(2,))


def gaussian():
    covariance = jnp.asarray([[1.0, 0.8], [0.8, 1.0]])
    return GaussianMixture(jnp.ones(1), jnp.zeros((1, 2)), covariance[None])


def exact():
    return gaussian().condition(jnp.eye(2)[:1], jnp.asarray(Y), NOISE)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_denoiser(name):
    """At low noise it is the identity, and at high noise it ignores x."""
    posterior = METHODS[name](
        GaussianMixtureDenoiser(eight_gaussians(0.3), EDM()), observation()
    )
    x = jnp.asarray([1.2, 0.7])
    check_denoiser(posterior, x, key=jax.random.key(0))
    draws = posterior.standardised()[0]
    assert type(draws) is type(posterior)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_the_posterior_of_a_gaussian(name):
    posterior = MMPS(GaussianMixtureDenoiser(gaussian(), EDM()), observation())
    draws = sample(
        posterior,
        SAMPLERS[name],
        key=jax.random.key(1),
        num_samples=4000,
        shape=(2,),
    ).x_0
    expected = exact()
    bound = 5.0 / np.sqrt(4000)
    deviation = jnp.sqrt(jnp.diag(expected.covariance()))
    error = (draws.mean(0) - expected.mean()) / deviation
    assert jnp.abs(error).max() < bound + 0.03
    assert jnp.abs(draws.std(0) / deviation - 1.0).max() < bound + 0.06


@pytest.mark.slow
def test_the_density_is_that_of_the_conditioned_gaussian():
    posterior = MMPS(GaussianMixtureDenoiser(gaussian(), EDM()), observation())
    x = jnp.asarray([1.0, 0.4])
    found = log_prob(posterior, x).value
    assert jnp.allclose(found, exact().log_prob(x), atol=1e-2)


@pytest.mark.slow
def test_samples_do_not_depend_on_batches_devices_and_the_other_measurements():
    posterior = MMPS(GaussianMixtureDenoiser(gaussian(), EDM()), observation())
    others = jnp.linspace(-1.0, 1.0, 8, dtype=jnp.float32)[:, None]
    settings = {"key": jax.random.key(2), "num_samples": 8, "shape": (2,)}
    settings["cond"] = Measured(others)
    draw = functools.partial(sample, posterior, ExpAB(8), **settings)
    whole, parts, spread = draw(), draw(batch_size=3), draw(layout=Layout(data=2))
    assert jnp.allclose(whole.x_0, parts.x_0, atol=1e-5)
    assert jnp.allclose(whole.x_0, spread.x_0, atol=1e-5)
    alone = eqx.filter_vmap(
        lambda y, key: ExpAB(8)(
            MMPS(posterior.denoiser, Observation(y, first, noise=NOISE)), (2,), key=key
        )
    )(others, jax.vmap(lambda i: jax.random.fold_in(settings["key"], i))(jnp.arange(8)))
    assert jnp.allclose(whole.x_0, alone, atol=1e-4)


@pytest.mark.slow
def test_the_gradient_of_a_sample_in_the_measurement():
    """Of a Gaussian's sample it is the gain, whatever the noise of the sampler."""
    denoiser = GaussianMixtureDenoiser(gaussian(), EDM())

    @jax.jit
    @jax.grad
    def gradient(y):
        posterior = MMPS(denoiser, Observation(y, first, noise=NOISE))
        return jnp.sum(ExpAB(12)(posterior, (2,), key=jax.random.key(3)))

    gain = jnp.asarray([1.0, 0.8]) / (1.0 + NOISE**2)
    assert jnp.allclose(gradient(jnp.asarray(Y)), jnp.sum(gain), rtol=2e-2)


@pytest.mark.slow
def test_counts_are_a_measurement():
    """The posterior mean under Poisson noise, against a sum over a grid."""
    posterior = condition(
        GaussianMixtureDenoiser(gaussian(), EDM()),
        Observation(
            np.array([9, 2]),
            lambda x: jnp.exp(1.0 + 0.5 * x),
            noise=lambda rate: dist.Poisson(rate),
        ),
    )
    draws = sample(
        posterior,
        DDIM(60, eta=1.0),
        key=jax.random.key(4),
        num_samples=500,
        shape=(2,),
    ).x_0
    axis = jnp.linspace(-4.0, 4.0, 161)
    grid = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    log_density = jax.vmap(
        lambda x: gaussian().log_prob(x) + posterior.observation.log_likelihood(x)
    )(grid)
    weights = jax.nn.softmax(log_density)
    mean = weights @ grid
    deviation = jnp.sqrt(weights @ (grid - mean[None]) ** 2)
    assert jnp.abs((draws.mean(0) - mean) / deviation).max() < 0.2
    assert jnp.abs(draws.std(0) / deviation - 1.0).max() < 0.15
