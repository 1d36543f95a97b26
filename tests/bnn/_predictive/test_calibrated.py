"""A predictive put right on held-out rows: the same mixture, stretched or tempered."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob.recalibrate import (
    TemperatureScaling,
    VarianceScaling,
    coverage_distribution,
)

ROWS = 1200


class Constant(bnn.AbstractPosterior):
    """A posterior of two functions that are known."""

    def sample(self, *, key):
        return self.atom(jax.random.randint(key, (), 0, 2))

    def mean(self):
        return self.atom(0)

    @property
    def num_atoms(self):
        return 2

    def atom(self, index):
        shift = 0.2 * jnp.asarray(index, float)
        return Shift(shift)


class Shift(bnn.AbstractPosterior):
    # Any module will do; this one adds a number to its input.
    shift: jax.Array

    def sample(self, *, key):
        return self

    def mean(self):
        return self

    def __call__(self, x):
        return x + self.shift.astype(x.dtype)


class TwoLogits(bnn.AbstractPosterior):
    def sample(self, *, key):
        return self

    def mean(self):
        return self

    def __call__(self, x):
        return jnp.stack([-x / 2, x / 2])


@pytest.fixture(scope="module")
def regression():
    """Predictions with half of the true noise: the right scale is about two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2 * ROWS, 2)).astype(np.float32)
    y = (x + 0.1 + rng.normal(size=x.shape)).astype(np.float32)
    likelihood = bnn.NormalLikelihood(0.5)
    held_out, predictive = (
        bnn.predict(Constant(), likelihood, part, key=jax.random.key(0))
        for part in (x[:ROWS], x[ROWS:])
    )
    calibrated = bnn.calibrate(predictive, held_out, y[:ROWS])
    return calibrated, y[ROWS:], (x[:ROWS], y[:ROWS])


@pytest.fixture(scope="module")
def classes():
    """Logits that are twice as large as they should be."""
    rng = np.random.default_rng(1)
    x = (3.0 * rng.normal(size=(2 * ROWS, 4))).astype(np.float32)
    y = np.argmax(x / 2 + rng.gumbel(size=x.shape), axis=1)
    likelihood = bnn.CategoricalLikelihood()
    held_out, predictive = (
        bnn.predict(Constant(), likelihood, part, key=jax.random.key(0))
        for part in (x[:ROWS], x[ROWS:])
    )
    calibrated = bnn.calibrate(predictive, held_out, y[:ROWS])
    return calibrated, y[ROWS:], (x[:ROWS], y[:ROWS])


@pytest.mark.slow
def test_the_stretched_mixture_is_that_mixture(regression):
    calibrated, y, _ = regression
    means = np.asarray(calibrated.uncalibrated.outputs)
    centre, scale = means.mean(1), float(calibrated.scale)
    parts: Any = scipy.stats.norm(
        centre[:, None] + scale * (means - centre[:, None]), 0.5 * scale
    )
    density = parts.logpdf(y[:, None]).sum(-1)
    expected = scipy.special.logsumexp(density, axis=1) - np.log(2)
    np.testing.assert_allclose(calibrated.log_prob(y), expected, rtol=2e-4, atol=2e-4)
    cdf = parts.cdf(y[:, None]).mean(1)
    np.testing.assert_allclose(calibrated.cdf(y), cdf, atol=1e-5)
    np.testing.assert_allclose(calibrated.mean, centre, rtol=1e-6)
    variance = scale**2 * (0.25 + means.var(1))
    np.testing.assert_allclose(calibrated.variance, variance, rtol=1e-4)
    np.testing.assert_allclose(calibrated.std**2, variance, rtol=1e-4)
    lower, upper = calibrated.interval(0.8)
    np.testing.assert_allclose(calibrated.cdf(lower), 0.1, atol=1e-4)
    np.testing.assert_allclose(calibrated.cdf(upper), 0.9, atol=1e-4)
    np.testing.assert_allclose(calibrated.quantile(0.1), lower, rtol=1e-6)


def test_the_scale_is_the_maximum_of_the_mixtures_likelihood(regression):
    calibrated, _, (_, y) = regression
    held_out = calibrated.held_out
    centre = held_out.mean

    def nll(scale):
        inner = held_out.log_prob(centre + (y - centre) / scale)
        return -float(np.mean(np.asarray(inner, float))) + 2 * np.log(scale)

    best = float(calibrated.scale)
    assert nll(best) < min(nll(0.98 * best), nll(1.02 * best))
    # One hump of nearly Gaussian shape: nearly the closed form.
    gaussian = VarianceScaling.fit(y, held_out.mean, held_out.std)
    assert abs(best - float(gaussian.scale)) < 0.02


@pytest.mark.slow
def test_calibration_helps_on_other_rows(regression, classes):
    for calibrated, y, _ in (regression, classes):
        gain = calibrated.log_prob(y) - calibrated.uncalibrated.log_prob(y)
        # Of other rows it is a tenth of a nat or more: eight standard errors.
        assert gain.mean() > 0


def test_samples_are_stretched(regression):
    calibrated, _, _ = regression
    key = jax.random.key(3)
    drawn = calibrated.uncalibrated.sample(key=key)
    expected = calibrated.mean + calibrated.scale * (drawn - calibrated.mean)
    np.testing.assert_allclose(calibrated.sample(key=key), expected, rtol=1e-6)


def test_conformal_intervals_cover_each_output(regression):
    calibrated, y, _ = regression
    lower, upper = calibrated.conformal_interval(0.9)
    covered = ((lower <= y) & (y <= upper)).mean(0)
    distribution = coverage_distribution(ROWS, 0.9)
    # Of the law of the calibration set, and of the test rows given it.
    error = np.sqrt(float(distribution.variance) + 0.09 / ROWS)
    assert (np.abs(covered - 0.9) < 5 * error).all()
    # The uncalibrated interval is far too narrow.
    raw = calibrated.uncalibrated.interval(0.9)
    assert ((raw[0] <= y) & (y <= raw[1])).mean() < 0.75


@pytest.mark.slow
def test_tempered_probabilities(classes):
    calibrated, y, (_, labels) = classes
    held_out = calibrated.held_out
    fitted = TemperatureScaling.fit(labels, jnp.log(held_out.probs))
    # The objective is in single precision, and flat to its square root at the optimum.
    np.testing.assert_allclose(calibrated.scale, fitted.temperature, rtol=1e-3)
    assert 1.5 < calibrated.scale < 2.7
    probs = np.asarray(calibrated.probs)
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-5)
    expected = np.log(probs[np.arange(ROWS), y])
    np.testing.assert_allclose(calibrated.log_prob(y), expected, rtol=1e-4, atol=1e-5)
    entropy = scipy.stats.entropy(probs, axis=1)
    np.testing.assert_allclose(calibrated.entropy, entropy, rtol=1e-3, atol=1e-5)
    drawn = np.stack([calibrated.sample(key=jax.random.key(i)) for i in range(200)])
    share = (drawn == 2).mean()
    error = np.sqrt((probs[:, 2] * (1 - probs[:, 2])).sum() / 200) / ROWS
    assert abs(share - probs[:, 2].mean()) < 5 * error


@pytest.mark.parametrize("lam", [0.0, 0.2])
def test_conformal_sets_cover(classes, lam):
    calibrated, y, _ = classes
    members = np.asarray(calibrated.conformal_set(0.9, lam=lam))
    covered = members[np.arange(ROWS), y].mean()
    assert covered > 0.9 - 5 * np.sqrt(2 * 0.09 / ROWS)


def test_two_classes_are_tempered_as_logits():
    rng = np.random.default_rng(2)
    x = (3.0 * rng.normal(size=ROWS)).astype(np.float32)
    y = (rng.uniform(size=ROWS) < scipy.special.expit(x / 2)).astype(np.int32)
    predictive = bnn.predict(
        Shift(jnp.zeros(())), bnn.BernoulliLikelihood(), x, key=jax.random.key(0),
        num_samples=1,
    )  # fmt: skip
    calibrated = bnn.calibrate(predictive, predictive, y)
    expected = scipy.special.expit(x / float(calibrated.scale))
    np.testing.assert_allclose(calibrated.probs, expected, rtol=1e-3, atol=1e-5)
    log_prob = scipy.stats.bernoulli.logpmf(y, expected)
    np.testing.assert_allclose(calibrated.log_prob(y), log_prob, rtol=2e-3, atol=1e-4)
    assert "Bernoulli" in repr(calibrated)


def test_wrong_rows_are_named(regression):
    calibrated, y, (_, held_out) = regression
    with pytest.raises(ValueError, match="y has shape"):
        bnn.calibrate(calibrated.uncalibrated, calibrated.held_out, held_out[:-1])
    with pytest.raises(ValueError, match="y has shape"):
        calibrated.log_prob(y[:-1])


@pytest.mark.slow
def test_moment_matched_is_the_gaussian_of_the_same_moments(regression):
    calibrated, y, _ = regression
    predictive = calibrated.uncalibrated
    expected = scipy.stats.norm.logpdf(y, predictive.mean, predictive.std)
    matched = predictive.moment_matched
    assert isinstance(matched, dist.Normal)
    np.testing.assert_allclose(matched.log_prob(y), expected, rtol=1e-4, atol=1e-5)
    std = calibrated.moment_matched.scale
    np.testing.assert_allclose(std, calibrated.std, rtol=1e-6)


def test_two_classes_of_which_rounding_leaves_one_are_calibrated():
    """As two logits are: 1 - p is zero in single precision beyond a logit of 17."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 100)
    x = np.where(y, 20.0, -20.0).astype(np.float32)
    y[:2] = 1 - y[:2]
    one, two = (
        bnn.predict(model, likelihood, x, key=jax.random.key(0), num_samples=1)
        for model, likelihood in (
            (Shift(jnp.zeros(())), bnn.BernoulliLikelihood()),
            (TwoLogits(), bnn.CategoricalLikelihood()),
        )
    )
    np.testing.assert_allclose(
        one.class_log_probs, scipy.special.log_expit(np.stack([-x, x], 1)), rtol=1e-6
    )
    one, two = bnn.calibrate(one, one, y), bnn.calibrate(two, two, y)
    assert np.isclose(one.scale, two.scale, rtol=2e-3)
    np.testing.assert_allclose(one.log_prob(y), two.log_prob(y), rtol=5e-3)
    # Two of a hundred are wrong: the likeliest temperature says so.
    assert np.isclose(float(one.probs.max()), 0.98, atol=1e-3)


@pytest.mark.parametrize("stated", [1e-4, 1e-2, 1e3])
def test_the_scale_is_found_however_far_off_the_noise_is(stated):
    """The maximum of the likelihood is the root mean square of the residuals."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1)).astype(np.float32)
    y = (x + rng.normal(size=x.shape)).astype(np.float32)
    model = bnn.PointPosterior(eqx.nn.Identity())
    likelihood = bnn.NormalLikelihood(stated)
    predictive = bnn.predict(model, likelihood, x, key=jax.random.key(0))
    scale = bnn.calibrate(predictive, predictive, y).scale
    expected = np.sqrt(np.mean((y - x) ** 2)) / stated
    assert float(scale) == pytest.approx(expected, rel=2e-3)


def test_residuals_of_zero_have_no_scale():
    x = np.linspace(-1.0, 1.0, 20, dtype=np.float32)[:, None]
    model = bnn.PointPosterior(eqx.nn.Identity())
    predictive = bnn.predict(model, bnn.NormalLikelihood(0.1), x, key=jax.random.key(0))
    with pytest.raises(ValueError, match="has no maximum in the scale"):
        bnn.calibrate(predictive, predictive, x)


def test_counts_are_not_stretched():
    x = np.zeros(4, np.float32)
    likelihood = bnn.PoissonLikelihood()
    predictive = bnn.predict(Constant(), likelihood, x, key=jax.random.key(0))
    with pytest.raises(ValueError, match="whole numbers, which no factor stretches"):
        bnn.calibrate(predictive, predictive, np.ones(4, np.int32))
