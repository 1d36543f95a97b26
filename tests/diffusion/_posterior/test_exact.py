"""Posterior denoisers against the closed form of Gaussians and of their mixtures."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    MMPS,
    TMPD,
    VE,
    DiffPIR,
    Measured,
    Observation,
    PiGDM,
    Scaled,
    condition,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

DIM = 4
LEVELS = (80.0, 3.0, 0.7, 0.1, 2e-3)


def gaussian(seed=0, scale=1.0):
    """A Gaussian with a correlated covariance and a mean far from 0."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(DIM, DIM))
    covariance = scale**2 * (root @ root.T / DIM + 0.1 * np.eye(DIM))
    mean = scale * rng.normal(size=DIM)
    return GaussianMixture(
        jnp.ones(1), jnp.asarray(mean)[None], jnp.asarray(covariance)[None]
    )


def problem(seed=1, rows=2):
    rng = np.random.default_rng(seed)
    matrix, y = jnp.asarray(rng.normal(size=(rows, DIM))), rng.normal(size=rows)
    return matrix, jnp.asarray(y), jnp.asarray(0.1 + 0.3 * np.arange(rows))


def observation(kind, matrix, y, noise):
    operator = {
        "function": lambda x: matrix @ x,
        "lineax": lx.MatrixLinearOperator(matrix),
        "affine": lambda x: matrix @ x + 1.0,
    }[kind]
    return Observation(y + (1.0 if kind == "affine" else 0.0), operator, noise=noise)


# Compiled once for all tests.
conditioned = jax.jit(lambda prior, *problem: prior.condition(*problem))


EXACT = {
    "MMPS": MMPS,
    "MMPS by CG": functools.partial(MMPS, max_dense=0, rtol=1e-12),
    "MMPS by lineax": functools.partial(MMPS, solver=lx.CG(1e-12, 1e-12)),
    "MMPS by GMRES": functools.partial(MMPS, solver=lx.GMRES(1e-12, 1e-12)),
    "TMPD": TMPD,
}


def worst(posterior, exact, levels=LEVELS, scale=1.0):
    """The largest difference from an exact denoiser over levels and points."""
    noise = jax.random.normal(jax.random.key(0), (6, DIM))

    @jax.jit
    def difference(level):
        x = scale * (0.3 + noise * jnp.sqrt(level**2 + 1.0))
        return jnp.max(
            jnp.abs(
                jax.vmap(lambda x: posterior.denoise(x, level))(x)
                - jax.vmap(lambda x: exact.denoise(x, level))(x)
            )
        )

    return max(float(difference(jnp.asarray(level))) for level in levels)


@pytest.mark.parametrize("name", EXACT)
def test_exact_on_gaussians_at_every_level(name):
    with jax.enable_x64(True):
        prior, problem_ = gaussian(), problem()
        posterior = EXACT[name](
            GaussianMixtureDenoiser(prior, EDM()), observation("function", *problem_)
        )
        exact = GaussianMixtureDenoiser(conditioned(prior, *problem_), EDM())
        assert worst(posterior, exact) < 1e-6


@pytest.mark.parametrize("kind", ["lineax", "affine"])
def test_any_linear_operator(kind):
    with jax.enable_x64(True):
        prior, problem_ = gaussian(), problem()
        denoiser = GaussianMixtureDenoiser(prior, EDM())
        posterior = condition(denoiser, observation(kind, *problem_))
        exact = GaussianMixtureDenoiser(conditioned(prior, *problem_), EDM())
        assert worst(posterior, exact) < 1e-6


@pytest.mark.slow
def test_standardised_is_the_same_posterior():
    """Data of mean 20 and scale 30, with the noise of the schedule in their units."""
    with jax.enable_x64(True):
        prior = gaussian()
        mean, scale = np.array([20.0, -3.0, 5.0, 1.0]), np.array([30.0, 1.0, 0.1, 2.0])
        matrix, y, noise = problem()
        whole = matrix / scale[None]
        y = y + whole @ mean
        inner = GaussianMixtureDenoiser(prior, VE())
        denoiser = Scaled(inner, mean, scale)
        posterior = MMPS(denoiser, Observation(y, lambda x: whole @ x, noise=noise))
        unit, units = posterior.standardised()
        exact = GaussianMixtureDenoiser(conditioned(prior, *problem()), VE())
        assert isinstance(unit, MMPS)
        assert not units.is_identity
        assert worst(unit, exact) < 1e-6
        x = jnp.asarray(mean + 0.3 * scale)
        there = units.to_data(eqx.filter_jit(unit.denoise)(units.to_unit(x), 0.7))
        assert jnp.allclose(eqx.filter_jit(posterior.denoise)(x, 0.7), there, rtol=1e-9)


def test_standardising_twice_composes_the_maps():
    with jax.enable_x64(True):
        prior, problem_ = gaussian(scale=30.0), problem()
        denoiser = GaussianMixtureDenoiser(prior, VE())
        posterior = MMPS(denoiser, observation("function", *problem_))
        exact = GaussianMixtureDenoiser(conditioned(prior, *problem_), VE())
        once, units = posterior.standardised()
        scale = float(np.asarray(units.scale))
        twice, _ = once.standardised()
        x, level = 1.0 + jnp.arange(4.0), 0.7
        expected = eqx.filter_jit(exact.denoise)(units.to_data(x), scale * level)
        for unit in (once, twice):
            found = units.to_data(eqx.filter_jit(unit.denoise)(x, level))
            assert jnp.allclose(found, expected, rtol=1e-8)


@pytest.mark.slow
def test_two_observations_are_one():
    with jax.enable_x64(True):
        prior, (matrix, y, noise) = gaussian(), problem()
        denoiser = GaussianMixtureDenoiser(prior, EDM())

        def part(i):
            return Observation(y[i], lambda x: matrix[i] @ x, noise=noise[i])

        exact = GaussianMixtureDenoiser(conditioned(prior, matrix, y, noise), EDM())
        nested = MMPS(MMPS(denoiser, part(0)), part(1))
        assert worst(nested, exact, (3.0, 0.7, 0.1)) < 1e-6
        tree = Observation(
            {"a": y[0], "b": y[1:]},
            lambda x: {"a": matrix[0] @ x, "b": matrix[1:] @ x},
            noise={"a": noise[0], "b": noise[1:]},
        )
        assert worst(MMPS(denoiser, tree), exact) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("max_dense", [0, 64])
def test_missing_entries_do_not_count(max_dense):
    with jax.enable_x64(True):
        prior, (matrix, y, noise) = gaussian(), problem(rows=3)
        denoiser = GaussianMixtureDenoiser(prior, EDM())
        rest = conditioned(prior, matrix[::2], y[::2], noise[::2])
        exact = GaussianMixtureDenoiser(rest, EDM())
        nan = y.at[1].set(jnp.nan)
        mask = np.array([False, True, False])
        for values, missing in ((nan, True), (nan, mask), (y.at[1].set(1e9), mask)):
            observed = Observation(
                values, lambda x: matrix @ x, noise=noise, missing=missing
            )
            posterior = MMPS(denoiser, observed, max_dense=max_dense, rtol=1e-12)
            assert worst(posterior, exact, (3.0, 0.1)) < 1e-6


def test_each_sample_may_have_a_measurement():
    with jax.enable_x64(True):
        prior, (matrix, y, noise) = gaussian(), problem()
        denoiser = GaussianMixtureDenoiser(prior, EDM())
        posterior = MMPS(denoiser, observation("function", matrix, y, noise))
        others = y[None] + jnp.asarray([[0.0], [1.0]])
        found = jax.vmap(lambda cond: posterior.denoise(jnp.ones(DIM), 0.7, cond))(
            Measured(others)
        )
        for row, value in zip(others, found, strict=True):
            exact = GaussianMixtureDenoiser(
                conditioned(prior, matrix, row, noise), EDM()
            )
            assert jnp.allclose(value, exact.denoise(jnp.ones(DIM), 0.7), atol=1e-8)


@pytest.mark.slow
def test_pigdm_and_diffpir_are_exact_on_white_data_where_they_say():
    """r^2 is the posterior variance of white data; with lam = 1 + s^2 so is DiffPIR."""
    with jax.enable_x64(True):
        prior = GaussianMixture(jnp.ones(1), jnp.zeros((1, DIM)), jnp.eye(DIM)[None])
        denoiser = GaussianMixtureDenoiser(prior, EDM())
        observed = observation("function", *problem())
        exact = GaussianMixtureDenoiser(conditioned(prior, *problem()), EDM())
        for max_dense in (0, 64):
            assert worst(PiGDM(denoiser, observed, max_dense=max_dense), exact) < 1e-4
            posterior = DiffPIR(
                denoiser, observed, lam=1.0 + 0.7**2, max_dense=max_dense
            )
            assert worst(posterior, exact, (0.7,)) < 1e-4


def test_condition_of_a_mixture_is_bayes_rule():
    """The density of the posterior over prior times likelihood is the same anywhere."""
    with jax.enable_x64(True):
        one, two = gaussian(0), gaussian(5)
        weights = jnp.asarray([0.3, 0.7])
        means = jnp.concatenate([one.means, two.means])
        covariances = jnp.concatenate([one.covariances, two.covariances])
        prior = GaussianMixture(weights, means, covariances)
        matrix, y, noise = problem()
        posterior = conditioned(prior, matrix, y, noise)
        observed = observation("function", matrix, y, noise)
        x = jax.random.normal(jax.random.key(1), (20, DIM))
        joint = jax.vmap(lambda x: prior.log_prob(x) + observed.log_likelihood(x))(x)
        rest = joint - jax.vmap(posterior.log_prob)(x)
        assert jnp.std(rest) < 1e-10
        assert 0.01 < posterior.weights[0] < 0.99
