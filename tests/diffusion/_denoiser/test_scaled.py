"""A denoiser of standardised data in the units of the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.datasets import Standardizer
from jaxprob.diffusion import (
    EDM,
    VE,
    ExpAB,
    Preconditioned,
    Scaled,
    log_prob,
    sample,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser, check_denoiser

MEAN, SCALE = np.array([100.0, -3.0]), np.array([30.0, 0.1])
COVARIANCE = np.array([[1.0, 0.6], [0.6, 1.0]])


def gaussian(mean, covariance):
    return GaussianMixture(jnp.ones(1), mean[None], covariance[None])


def standard():
    return GaussianMixtureDenoiser(
        gaussian(jnp.zeros(2), jnp.asarray(COVARIANCE)), VE()
    )


def in_units():
    covariance = SCALE[:, None] * COVARIANCE * SCALE[None]
    return gaussian(jnp.asarray(MEAN), jnp.asarray(covariance))


@pytest.mark.slow
def test_the_density_has_the_jacobian(x64):
    scaled, exact = Scaled(standard(), MEAN, SCALE), in_units()
    x = jnp.array([130.0, -2.95])
    value = jax.jit(lambda x: log_prob(scaled, x, rtol=1e-7, atol=1e-7).value)(x)
    assert jnp.allclose(value, exact.log_prob(x), atol=1e-4)


def test_the_mean_is_that_of_the_data_with_noise_in_their_units(x64):
    scaled, x, level = Scaled(standard(), MEAN, SCALE), jnp.array([120.0, -3.1]), 0.7
    covariance = in_units().covariance()
    noise = jnp.diag(jnp.asarray((level * SCALE) ** 2))
    gain = covariance @ jnp.linalg.inv(covariance + noise)
    expected = MEAN + gain @ (x - MEAN)
    assert jnp.allclose(scaled.denoise(x, level), expected, rtol=1e-10)


@pytest.mark.slow
def test_samples_are_in_the_units_of_the_data():
    scaled = Scaled(standard(), MEAN, SCALE)
    draws = sample(
        scaled, ExpAB(10), key=jax.random.key(0), num_samples=2000, shape=(2,)
    )
    unit = (np.asarray(draws.x_0, float) - MEAN) / SCALE
    np.testing.assert_allclose(unit.mean(0), 0.0, atol=0.1)
    np.testing.assert_allclose(np.cov(unit.T), COVARIANCE, atol=0.12)


def test_it_is_a_denoiser(getkey):
    check_denoiser(Scaled(standard(), MEAN, SCALE), jnp.asarray(MEAN), key=getkey())


def network(x, c, cond, *, key):
    return jnp.sin(x) + c


def test_it_is_the_scale_of_a_preconditioned_network():
    x, scaler = jnp.array([90.0, -3.2]), Standardizer(MEAN, SCALE)
    inner = Preconditioned(network, EDM())
    scaled = Scaled(inner, scaler.mean, scaler.std)
    known = Preconditioned(network, EDM(), mean_data=MEAN, sigma_data=SCALE)
    np.testing.assert_allclose(scaled.denoise(x, 0.5), known.denoise(x, 0.5), 1e-6)
    # Of a denoiser that has units already, both apply.
    twice = Scaled(known, 5.0, 2.0)
    units = twice.standardised()[1]
    np.testing.assert_allclose(units.mean, 5.0 + 2.0 * MEAN)
    np.testing.assert_allclose(units.scale, 2.0 * SCALE)
    there = twice.denoise(5.0 + 2.0 * x, 0.5)
    np.testing.assert_allclose(there, 5.0 + 2.0 * known.denoise(x, 0.5), 1e-6)
    unit, _ = twice.standardised()
    there = units.to_data(unit.denoise(units.to_unit(5.0 + 2.0 * x), 0.5))
    np.testing.assert_allclose(there, twice.denoise(5.0 + 2.0 * x, 0.5), 1e-5)


def test_scales_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="must be positive"):
        Scaled(standard(), 0.0, [1.0, 0.0])
