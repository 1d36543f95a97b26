"""Samplers that are exact in a limit, against closed forms of mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob.diffusion import (
    EDM,
    MMPS,
    AbstractDenoiser,
    AbstractPosteriorDenoiser,
    Observation,
    Scaled,
    SplitGibbs,
    condition,
    sample,
    sample_particles,
)
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

MIXTURE = GaussianMixture(
    jnp.array([0.35, 0.65]),
    jnp.array([[1.2, -0.4], [-0.8, 0.5]]),
    jnp.array([[[0.3, 0.1], [0.1, 0.2]], [[0.15, -0.05], [-0.05, 0.4]]]),
)
MATRIX, Y, NOISE = jnp.array([[1.0, 0.5]]), jnp.array([0.4]), 0.4
# The prior in units in which nothing is 1.
SHIFT, SIZE = 3.0, 5.0


class Unconditional(AbstractPosteriorDenoiser):
    """A posterior denoiser that does not look at the measurement."""

    denoiser: AbstractDenoiser
    observation: Observation

    def answer(self, prior, observation, x, level):
        return prior(x)


def operator(x):
    # One function, so that all runs are one program.
    return MATRIX @ ((x - SHIFT) / SIZE)


def observed(noise=NOISE, linear=False):
    return Observation(Y, operator, noise=noise, linear=linear, shape=(2,))


def prior():
    return Scaled(GaussianMixtureDenoiser(MIXTURE, EDM()), SHIFT, SIZE)


def log_evidence():
    means = MIXTURE.means @ MATRIX[0]
    variances = jnp.einsum("i,kij,j->k", MATRIX[0], MIXTURE.covariances, MATRIX[0])
    scale = jnp.sqrt(variances + NOISE**2)
    terms = jax.scipy.stats.norm.logpdf(Y[0], means, scale)
    return jax.nn.logsumexp(terms + jnp.log(MIXTURE.weights))


def particles(method, num, seed, grid=60):
    return sample_particles(
        method(prior(), observed()),
        key=jax.random.key(seed),
        num_particles=num,
        shape=(2,),
        grid=grid,
    )


@pytest.mark.parametrize("method", [MMPS, Unconditional])
def test_weights_correct_any_proposal(method):
    found = particles(method, 800, 0)
    exact = MIXTURE.condition(MATRIX, Y, NOISE)
    mean = SHIFT + SIZE * exact.mean()
    np.testing.assert_array_less(np.abs(found.mean - mean), 4.0 * found.mean_error)
    # The steps of the prior's own sampler are off by .01 to .02 nats.
    error = abs(found.log_evidence - log_evidence())
    assert error < 4.0 * found.log_evidence_error + 0.02
    std = SIZE * jnp.sqrt(jnp.diag(exact.covariance()))
    np.testing.assert_allclose(found.std, std, rtol=0.12)
    draws = found.sample(key=jax.random.key(1), num_samples=2000)
    np.testing.assert_allclose(jnp.std(draws, axis=0), std, rtol=0.15)
    assert found.ess.shape == found.levels.shape
    if method is Unconditional:
        assert found.num_resampled > 0


@pytest.mark.slow
def test_errors_fall_like_the_root_and_are_as_large_as_they_say():
    few = [particles(MMPS, 30, i, 25) for i in range(40)]
    many = [particles(MMPS, 480, i, 25) for i in range(40, 80)]
    # Around the mean of the larger runs: the error of the steps is the same.
    centre = np.mean([p.mean for p in many], axis=0)
    errors = [np.array([p.mean - centre for p in runs]) for runs in (few, many)]
    ratio = np.sqrt(np.mean(errors[0] ** 2) / np.mean(errors[1] ** 2))
    assert 4.0 / 1.4 < ratio < 4.0 * 1.4
    for runs, deviations in zip((few, many), errors, strict=True):
        claimed = np.array([p.mean_error for p in runs])
        size = np.sqrt(np.mean(deviations**2) / np.mean(claimed**2))
        assert 0.7 < size < 1.4
        nats = np.array([p.log_evidence for p in runs])
        claimed = np.array([p.log_evidence_error for p in runs])
        assert 0.65 < np.std(nats, ddof=1) / np.sqrt(np.mean(claimed**2)) < 1.5


@pytest.mark.slow
def test_noise_of_any_distribution():
    """Poisson counts of a positive function of x, against an integral on a grid."""
    y = jnp.array([3, 1])

    def rate(x):
        return jnp.exp((x - SHIFT) / SIZE)

    observation = Observation(y, rate, noise=lambda rate: dist.Poisson(rate))
    found = sample_particles(
        condition(prior(), observation),
        key=jax.random.key(3),
        num_particles=150,
        shape=(2,),
        grid=40,
    )
    axis = np.linspace(-5.0, 5.0, 161)
    points = jnp.asarray(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    nats = jax.vmap(MIXTURE.log_prob)(points)
    nats = nats + jnp.sum(dist.Poisson(jnp.exp(points)).log_prob(y[None]), axis=1)
    total = jax.nn.logsumexp(nats)
    mean = SHIFT + SIZE * jnp.exp(nats - total) @ points
    evidence = total + 2.0 * np.log(axis[1] - axis[0])
    np.testing.assert_array_less(
        np.abs(found.mean - mean), 4.0 * found.mean_error + 0.02 * SIZE
    )
    error = abs(found.log_evidence - evidence)
    assert error < 4.0 * found.log_evidence_error + 0.02


def test_split_gibbs_has_the_moments_of_its_closed_form():
    num, rho = 1000, 0.3
    sampler = SplitGibbs(20, num_steps=15, level_min=rho)
    draws = sample(
        condition(prior(), observed(linear=True)),
        sampler,
        key=jax.random.key(0),
        num_samples=num,
        shape=(2,),
    )
    # rho is in units of the data's standard deviation.
    unit = float(prior().standardised()[1].scale) / SIZE
    wider = jnp.sqrt(NOISE**2 + (rho * unit) ** 2 * jnp.sum(MATRIX**2))
    exact = MIXTURE.condition(MATRIX, Y, wider)
    z = (np.asarray(draws.x_0) - SHIFT) / SIZE
    covariance = np.asarray(exact.covariance())
    error = np.sqrt(np.diag(covariance) / num)
    np.testing.assert_array_less(np.abs(z.mean(0) - exact.mean()), 5.0 * error)
    found = np.cov(z.T)
    assert np.abs(found - covariance).max() < 0.15 * covariance.max()
    narrow = np.asarray(MIXTURE.condition(MATRIX, Y, NOISE).covariance())
    assert np.abs(found - covariance).max() < np.abs(found - narrow).max()


SETTINGS = {"key": jax.random.key(0), "num_particles": 8, "shape": (2,), "grid": 4}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sample_particles(prior(), **SETTINGS), TypeError, "posterior"),
        (
            lambda: sample_particles(
                condition(prior(), observed()), **(SETTINGS | {"num_particles": 1})
            ),
            ValueError,
            "at least two particles",
        ),
        (
            lambda: sample_particles(
                condition(prior(), observed()), resample_below=2.0, **SETTINGS
            ),
            ValueError,
            "resample_below=2.0",
        ),
        (
            lambda: sample_particles(
                Unconditional(prior(), observed(1e-4)), **SETTINGS
            ),
            RuntimeError,
            "collapsed: the effective sample size is .* at step .* noise level",
        ),
        (
            lambda: sample_particles(
                Unconditional(prior(), Observation(np.nan * Y, noise=1.0)), **SETTINGS
            ),
            ValueError,
            "NaN",
        ),
        (lambda: SplitGibbs(1), ValueError, "num_turns=1"),
        (lambda: SplitGibbs(level_min=0.0), ValueError, "level_min=0.0"),
        (
            lambda: SplitGibbs().check_model(condition(prior(), observed())),
            ValueError,
            "requires a linear operator",
        ),
        (lambda: SplitGibbs().check_model(prior()), TypeError, "condition"),
        (
            lambda: SplitGibbs().check_model(
                condition(prior(), Observation(jnp.zeros(2, int), noise=dist.Poisson))
            ),
            ValueError,
            "Gaussian noise",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
