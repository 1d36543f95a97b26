"""The gold standard of the benchmark of inverse problems, against exact answers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks._signals import (
    INCREMENTS,
    LENGTH,
    IncrementDenoiser,
    gibbs,
    operator,
)

DENSITIES = {
    "Gaussian": stats.norm,
    "Laplace": stats.laplace,
    "Bernoulli-Laplace": stats.laplace,
    "Student t, 3": stats.t(3),
    "Student t, 2": stats.t(2),
    "Student t, 1": stats.t(1),
}


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", INCREMENTS)
def test_the_denoiser_is_the_integral_of_the_density(name):
    increment, density = INCREMENTS[name], DENSITIES[name]
    denoiser = IncrementDenoiser(increment)
    x = jnp.asarray([0.3, -2.0, 7.0])
    for level in (0.05, 1.0, 20.0):
        found = denoiser.denoise(x, level)
        slopes = jax.jacfwd(denoiser.denoise)(x, level)
        step = 1e-5 * jnp.ones(3)
        near = denoiser.denoise(x + step, level) - denoiser.denoise(x - step, level)
        np.testing.assert_allclose(slopes, jnp.diag(near / 2e-5), atol=1e-6)
        unit, units = denoiser.standardised()
        scaled = units.to_data(unit.denoise(units.to_unit(x), level / increment.unit))
        np.testing.assert_allclose(scaled, found, rtol=1e-9)
        for at, value in zip(np.asarray(x), found, strict=True):

            def joint(u, power, at=at, level=level):
                return u**power * density.pdf(u) * stats.norm.pdf(at, u, level)

            ends = at - 12.0 * level, at + 12.0 * level
            kinks = [0.0, at] if ends[0] < 0.0 < ends[1] else [at]
            parts = [
                integrate.quad(joint, *ends, args=(p,), points=kinks, limit=400)[0]
                for p in (0, 1)
            ]
            whole = (1.0 - increment.spike) * parts[0]
            whole += increment.spike * stats.norm.pdf(at, 0.0, level)
            exact = (1.0 - increment.spike) * parts[1] / whole
            np.testing.assert_allclose(value, exact, rtol=1e-5, atol=1e-7)


MATRIX = np.array([[1.0, 0.4], [0.7, 1.3]])
Y, NOISE = np.array([0.9, 2.2]), 0.8


def by_quadrature(name):
    """Mean and second moments of two increments, summed over spikes and densities."""
    increment, density = INCREMENTS[name], DENSITIES[name]
    axis = np.linspace(-12.0, 12.0, 1201) + 0.01
    grid = density.pdf(axis) * (axis[1] - axis[0]) * (1.0 - increment.spike)
    moments = np.zeros(6)
    spike = (np.zeros(1), np.array([increment.spike]))
    for (a, p), (b, q) in itertools.product([(axis, grid), spike], repeat=2):
        u = np.stack(np.meshgrid(a, b, indexing="ij"), -1)
        weight = p[:, None] * q * stats.norm.pdf(Y - u @ MATRIX.T, scale=NOISE).prod(-1)
        one = np.ones(u.shape[:2])
        powers = [one, u[..., 0], u[..., 1], u[..., 0] ** 2, u[..., 1] ** 2]
        powers.append(u[..., 0] * u[..., 1])
        moments += [np.sum(weight * power) for power in powers]
    return moments[1:3] / moments[0], moments[3:] / moments[0]


@pytest.mark.parametrize("name", INCREMENTS)
def test_gibbs_sampling_has_the_moments_of_the_posterior(name):
    num = 4000

    @jax.jit
    @jax.vmap
    def chains(key):
        return gibbs(
            INCREMENTS[name],
            jnp.asarray(MATRIX),
            jnp.asarray(Y),
            NOISE,
            jnp.zeros(2),
            key=key,
            num_warmup=20,
            num_samples=num,
        )

    draws, means = chains(jax.random.split(jax.random.key(0), 16))
    mean, second = by_quadrature(name)
    squares = jnp.stack(
        [draws[..., 0] ** 2, draws[..., 1] ** 2, draws[..., 0] * draws[..., 1]], -1
    )
    for found, exact in (
        (means, mean),
        (jnp.mean(draws, axis=1), mean),
        (jnp.mean(squares, axis=1), second),
    ):
        error = np.std(found, axis=0, ddof=1) / np.sqrt(len(found)) + 1e-12
        np.testing.assert_array_less(np.abs(found.mean(0) - exact), 5.0 * error + 1e-6)
        assert (error < 0.02 * np.sqrt(1.0 + np.abs(exact))).all()


def test_gibbs_sampling_is_exact_for_gaussian_signals():
    matrix = np.cumsum(operator("Fourier")[:, ::-1], axis=1)[:, ::-1]
    rng = np.random.default_rng(0)
    y = matrix @ rng.normal(size=LENGTH) + NOISE * rng.normal(size=LENGTH)
    draws, mean = gibbs(
        INCREMENTS["Gaussian"],
        jnp.asarray(matrix),
        jnp.asarray(y),
        NOISE,
        jnp.zeros(LENGTH),
        key=jax.random.key(0),
        num_warmup=1,
        num_samples=3000,
    )
    precision = np.eye(LENGTH) + matrix.T @ matrix / NOISE**2
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(mean, covariance @ matrix.T @ y / NOISE**2, atol=1e-9)
    np.testing.assert_allclose(np.cov(draws.T), covariance, atol=5.5 / np.sqrt(3000))
