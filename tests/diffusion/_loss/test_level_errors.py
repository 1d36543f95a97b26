"""Which noise levels a data set needs, and what a denoiser makes of them."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import diffusion
from jaxprob.diffusion._denoiser.spectrum import linear_error, variances
from jaxprob.testing import GaussianMixture, GaussianMixtureDenoiser

SCHEDULE = diffusion.EDM()


def gaussian(covariance):
    dim = len(covariance)
    return GaussianMixture(
        jnp.ones(1), jnp.zeros((1, dim)), jnp.asarray(covariance)[None]
    )


def rows(distribution, num, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return np.asarray(jax.vmap(lambda key: distribution.sample(key=key))(keys))


def smooth(num, dim=64, seed=0):
    """Signals that are one wave of either sign, and little else: two classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, num).astype(np.int32)
    wave = np.sin(2 * np.pi * np.arange(dim) / dim)
    x = (2 * labels[:, None] - 1) * wave + 0.1 * rng.normal(size=(num, dim))
    return (x / x.std()).astype(np.float32), labels, wave


def test_variances_are_eigenvalues_of_covariances(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6))
    exact = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert np.allclose(variances(x), exact)
    assert np.allclose(variances(x[:4])[:3], np.linalg.eigvalsh(np.cov(x[:4].T))[:2:-1])
    labels = np.arange(50) % 2
    within = sum(
        (np.sum(labels == c) - 1) * np.cov(x[labels == c].T) for c in (0, 1)
    ) / (50 - 2)
    assert np.allclose(variances(x, labels), np.linalg.eigvalsh(within)[::-1])


@pytest.mark.slow
def test_the_exact_denoiser_of_a_gaussian_has_the_linear_error(x64):
    root = np.random.default_rng(1).normal(size=(3, 3))
    covariance = root @ root.T
    covariance *= 3 / np.trace(covariance)
    distribution = gaussian(covariance)
    denoiser = GaussianMixtureDenoiser(distribution, SCHEDULE)
    x = rows(distribution, 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an estimate a hair above
        found = diffusion.level_errors(denoiser, x, key=jax.random.key(2))
    exact = linear_error(np.linalg.eigvalsh(covariance), found.levels, 3)
    # Squares of 4,000 rows, and eigenvalues of 1,024: 5 s.e. of one direction's.
    assert np.allclose(found.error, exact, rtol=5 * np.sqrt(2 / 4000))
    assert np.allclose(found.linear, exact, rtol=5 * np.sqrt(2 / 1024))
    assert found.error_mismatched is None
    assert len(str(found).splitlines()) == 1 + len(found.levels)


def test_levels_of_white_data_stay_near_the_default_and_those_of_smooth_data_rise():
    denoiser = GaussianMixtureDenoiser(gaussian(np.eye(64)), SCHEDULE)
    white = np.random.default_rng(0).normal(size=(4000, 64)).astype(np.float32)
    near = diffusion.LogNormalLevels.fitted(denoiser, white)
    default = diffusion.LogNormalLevels()
    # All variances are 1, decided at level 1, and half of the weight is the default's.
    # Those of 1,024 rows spread by a quarter, which moves log levels by a hundredth.
    assert abs(near.mean - 0.5 * default.mean) < 0.02
    apart = 0.25 * default.mean**2
    variance = 0.5 * (np.pi**2 / 12 + default.std**2) + apart
    assert abs(near.std - variance**0.5) < 0.02
    x, _, _ = smooth(600)
    up = diffusion.LogNormalLevels.fitted(denoiser, x)
    # The wave has a variance of 32 beside .01 in each direction, in units of their sum.
    values = np.array([32.01, *np.full(63, 0.01)]) * 64 / (32 + 64 * 0.01)
    share, log_level = values / 64, 0.5 * np.log(values)
    mean = share @ log_level
    variance = share @ (log_level - mean) ** 2 + np.pi**2 / 12
    assert abs(up.mean - 0.5 * (mean + default.mean)) < 0.02
    apart = 0.25 * (mean - default.mean) ** 2
    variance = 0.5 * (variance + default.std**2) + apart
    assert abs(up.std - variance**0.5) < 0.02
    with pytest.raises(ValueError, match="rows that do not differ"):
        diffusion.LogNormalLevels.fitted(denoiser, np.ones((5, 64), np.float32))


def test_times_that_leave_out_the_widest_direction_are_warned_of():
    x, _, _ = smooth(600, dim=1024)  # of standard deviation 32
    denoiser = GaussianMixtureDenoiser(gaussian(np.eye(1024)), SCHEDULE)
    low = diffusion.DenoisingLoss(times=diffusion.LogNormalLevels())
    with pytest.warns(UserWarning, match=r"training times have a noise level above 15"):
        low.check(denoiser, x)
    fitted = diffusion.LogNormalLevels.fitted(denoiser, x)
    for times in (fitted, diffusion.UniformTimes()):
        diffusion.DenoisingLoss(times=times).check(denoiser, x)
    # Digits-like data of 64 independent pixels are fine with the default.
    white = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
    low.check(GaussianMixtureDenoiser(gaussian(np.eye(64)), SCHEDULE), white)


class Classes(diffusion.AbstractDenoiser):
    """The exact denoiser of two Gaussian classes; deaf above a level."""

    schedule: diffusion.AbstractSchedule
    means: jax.Array
    deaf_above: float

    def denoise(self, x, level, cond=None, *, key=None):
        distribution = GaussianMixture(
            jnp.ones(2) / 2, self.means, 0.02 * jnp.stack([jnp.eye(64)] * 2)
        )
        deaf = GaussianMixtureDenoiser(distribution, self.schedule).denoise(x, level)
        mean = self.means[cond]
        shrink = 0.02 / (0.02 + level**2)
        return jnp.where(level > self.deaf_above, deaf, mean + shrink * (x - mean))


@pytest.mark.slow
def test_a_denoiser_that_is_deaf_at_high_levels_is_warned_of():
    x, labels, _ = smooth(500)
    means = np.stack([x[labels == c].mean(0) for c in (0, 1)])
    hears = Classes(SCHEDULE, jnp.asarray(means), 1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = diffusion.level_errors(hears, x, labels, key=jax.random.key(0))
    high = found.levels > 4.0
    assert found.error_mismatched is not None
    assert found.linear_without is not None
    assert np.all(found.error_mismatched[high] > 2 * found.error[high])
    assert np.all(found.linear[high] < 0.5 * found.linear_without[high])
    deaf = Classes(SCHEDULE, jnp.asarray(means), 3.0)
    with (
        pytest.warns(UserWarning, match="does not use its condition at"),
        pytest.warns(UserWarning, match="worse than the best linear one"),
    ):
        diffusion.level_errors(deaf, x, labels, key=jax.random.key(0))
