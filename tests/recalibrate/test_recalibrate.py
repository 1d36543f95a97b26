"""Recalibration: closed forms, the distribution of coverage, MAPIE's numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from jaxprob.recalibrate import (
    AdaptiveSets,
    ConformalQuantiles,
    SplitConformal,
    TemperatureScaling,
    VarianceScaling,
    conformal_quantile,
    coverage_distribution,
)

LEVEL = 0.9


def classes(rows, *, seed=0, temperature=1.0, num_classes=5):
    """Labels drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = 2.0 * rng.normal(size=(rows, num_classes))
    noise = rng.gumbel(size=logits.shape)
    return np.argmax(logits / temperature + noise, axis=1), logits


def test_temperature_is_the_maximum_of_the_likelihood(x64):
    labels, logits = classes(500, temperature=1.7)

    def nll(log_temperature):
        log_probs = scipy.special.log_softmax(logits / np.exp(log_temperature), axis=1)
        return -log_probs[np.arange(500), labels].mean()

    best: Any = scipy.optimize.minimize_scalar(nll, tol=1e-12)
    fitted = TemperatureScaling.fit(labels, logits)
    np.testing.assert_allclose(jnp.log(fitted.temperature), best.x, atol=1e-7)


def test_temperature_is_found_again(x64):
    labels, logits = classes(20_000, temperature=1.7)
    fitted = TemperatureScaling.fit(labels, logits)
    # The standard error is 1 / sqrt(n I), I the variance of the logit under the model.
    probs = scipy.special.softmax(logits / 1.7, axis=1)
    mean = (probs * logits).sum(1)
    information = (probs * logits**2).sum(1) - mean**2
    error = 1.7**2 / np.sqrt(information.sum())
    assert abs(fitted.temperature - 1.7) < 5 * error


def test_tempered_probabilities_keep_their_order_and_sum_to_one():
    labels, logits = classes(50)
    tempered = TemperatureScaling.fit(labels, logits.astype(np.float32))(logits)
    np.testing.assert_allclose(jnp.exp(tempered).sum(1), 1.0, rtol=1e-6)
    assert (np.argmax(tempered, 1) == np.argmax(logits, 1)).all()


def test_a_label_without_probability_is_named():
    log_probs = np.log(np.asarray([[0.5, 0.5], [1.0, 1e-30]]))
    log_probs[1, 1] = -np.inf
    with pytest.raises(ValueError, match="log_probs row 1"):
        TemperatureScaling.fit(np.asarray([0, 1]), log_probs)
    more = np.concatenate([log_probs, np.log([[0.8, 0.2]] * 4)])
    TemperatureScaling.fit(np.asarray([0, 0, 0, 0, 0, 1]), more)


@pytest.mark.parametrize("temperature", [1e-4, 1.0, 1e4])
def test_the_temperature_is_found_wherever_it_is(x64, temperature):
    labels, logits = classes(300, temperature=1.0)
    expected = TemperatureScaling.fit(labels, logits).temperature
    found = TemperatureScaling.fit(labels, logits / temperature).temperature
    np.testing.assert_allclose(found * temperature, expected, rtol=1e-6)


def test_labels_without_an_error_have_no_best_temperature():
    logits = np.asarray(classes(50)[1], np.float32)
    right = np.argmax(logits, axis=1)
    with pytest.warns(UserWarning, match="the 50 labels is the most probable class"):
        fitted = TemperatureScaling.fit(right, logits)
    log_probs = np.take_along_axis(np.asarray(fitted(logits)), right[:, None], 1)
    assert np.exp(log_probs.sum()) == pytest.approx(0.5, rel=1e-3)
    with pytest.warns(UserWarning, match="worse than chance"):
        fitted = TemperatureScaling.fit(np.argmin(logits, axis=1), logits)
    np.testing.assert_allclose(np.exp(fitted(logits)), 0.2, atol=1e-3)


def test_variance_scaling_is_the_maximum_of_the_likelihood(x64):
    rng = np.random.default_rng(0)
    mean, std = rng.normal(size=100), rng.uniform(0.5, 2.0, size=100)
    y = mean + 1.6 * std * rng.normal(size=100)

    def nll(s):
        return -scipy.stats.norm.logpdf(y, mean, s * std).mean()

    best: Any = scipy.optimize.minimize_scalar(nll, bracket=(0.5, 1.5, 4.0))
    scaling = VarianceScaling.fit(y, mean, std)
    np.testing.assert_allclose(scaling.scale, best.x, rtol=1e-5)
    np.testing.assert_allclose(scaling(std), scaling.scale * std, rtol=1e-15)


def test_the_conformal_quantile_is_an_order_statistic():
    scores = np.asarray([3.0, 1.0, 2.0, 5.0, 4.0, 9.0, 8.0, 7.0, 6.0], np.float32)
    # ceil(10 * .9) = 9 of 9 scores; .7 * 10 is 7.000000000000001 in floating point.
    assert conformal_quantile(scores, 0.9) == 9.0
    assert conformal_quantile(scores, 0.7) == 7.0
    assert conformal_quantile(scores, 0.71) == 8.0
    assert conformal_quantile(scores, 0.95) == np.inf


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90.0])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match="level="):
        conformal_quantile(np.ones(3), level)


def test_too_few_rows_have_no_law():
    with pytest.raises(ValueError, match="at least 9 rows"):
        coverage_distribution(8, 0.9)
    np.testing.assert_allclose(coverage_distribution(9, 0.9).mean, 0.9, rtol=1e-6)


def coverages(method, runs=2000, rows=60):
    """Exact coverage of each of many calibration sets, for y ~ N(0, 1)."""
    rng = np.random.default_rng(1)
    y = rng.normal(size=(runs, rows))

    def one(y):
        if method == "split":
            lower, upper = SplitConformal.fit(y, jnp.zeros(rows), level=LEVEL)(
                jnp.zeros(1)
            )
        else:
            ends = -jnp.full(rows, 0.3), jnp.full(rows, 0.5)
            fitted = ConformalQuantiles.fit(y, *ends, level=LEVEL)
            lower, upper = fitted(ends[0][:1], ends[1][:1])
        return jax.scipy.stats.norm.cdf(upper[0]) - jax.scipy.stats.norm.cdf(lower[0])

    return np.asarray(jax.vmap(one)(jnp.asarray(y)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["split", "quantiles"])
def test_coverage_follows_its_beta_law(x64, method):
    distribution: Any = coverage_distribution(60, LEVEL)
    found = coverages(method)
    beta = scipy.stats.beta(
        float(distribution.concentration1), float(distribution.concentration0)
    )
    assert scipy.stats.kstest(found, beta.cdf).pvalue > 1e-6
    # The test would see a rank that is wrong by one.
    for wrong in (-1, 1):
        off = scipy.stats.beta(beta.args[0] + wrong, beta.args[1] - wrong)
        assert scipy.stats.kstest(found, off.cdf).pvalue < 1e-6


def test_scaled_intervals_are_as_wide_as_their_scale():
    rng = np.random.default_rng(0)
    std = rng.uniform(0.5, 2.0, 40)
    fitted = SplitConformal.fit(std * rng.normal(size=40), np.zeros(40), std, level=0.8)
    lower, upper = fitted(np.zeros(40), std)
    np.testing.assert_allclose(upper - lower, 2 * fitted.quantile * std, rtol=1e-6)


def test_crossing_quantiles_meet():
    fitted = ConformalQuantiles(jnp.asarray(-2.0))
    lower, upper = fitted(np.asarray([0.0, 0.0]), np.asarray([1.0, 6.0]))
    np.testing.assert_array_equal(lower, [0.5, 2.0])
    np.testing.assert_array_equal(upper, [0.5, 4.0])


@pytest.mark.slow
@pytest.mark.parametrize("lam", [0.0, 0.1])
@pytest.mark.parametrize("randomised", [False, True])
def test_sets_cover(lam, randomised):
    labels, logits = classes(40_000)
    probs = np.asarray(jax.nn.softmax(0.6 * logits, axis=1))  # underconfident
    keys = jax.random.split(jax.random.key(0)) if randomised else (None, None)
    half = 20_000
    fitted = AdaptiveSets.fit(
        labels[:half], probs[:half], level=LEVEL, lam=lam, k_reg=2, key=keys[0]
    )
    members = np.asarray(fitted(probs[half:], key=keys[1]))
    found = members[np.arange(half), labels[half:]].mean()
    # Both halves are random: twice the binomial variance.
    error = np.sqrt(2 * LEVEL * (1 - LEVEL) / half)
    assert found > LEVEL - 5 * error
    if randomised:
        # The top class that is always in only adds, and little.
        assert found < LEVEL + 5 * error + 0.02
    assert members.any(axis=1).all()


def test_a_set_by_hand():
    probs = np.asarray([[0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])
    sets = AdaptiveSets(jnp.asarray(0.92), 0.0, 1)
    np.testing.assert_array_equal(
        sets(probs), [[False, True, True], [False, True, True]]
    )
    penalised = AdaptiveSets(jnp.asarray(0.92), 0.2, 1)
    np.testing.assert_array_equal(
        penalised(probs), [[False, True, False], [False, False, True]]
    )


class Identity:
    """A fitted scikit-learn estimator that gives back its feature as prediction."""

    n_features_in_ = 1

    def fit(self, X, y=None):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict(self, X):
        return np.asarray(X)[:, 0]


@pytest.mark.slow
def test_split_conformal_is_mapies():
    regression = pytest.importorskip("mapie.regression")
    rng = np.random.default_rng(3)
    mean = rng.normal(size=(80, 1))
    y = mean[:, 0] + rng.standard_t(3, size=80)
    peer = regression.SplitConformalRegressor(
        estimator=Identity(), confidence_level=LEVEL, prefit=True
    )
    peer.conformalize(mean, y)
    _, intervals = peer.predict_interval(mean)
    lower, upper = SplitConformal.fit(y, mean[:, 0], level=LEVEL)(mean[:, 0])
    np.testing.assert_allclose(lower, intervals[:, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(upper, intervals[:, 1, 0], rtol=1e-5)
