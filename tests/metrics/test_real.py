"""Scores of real outcomes against quadrature, scoringrules, SciPy and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import scoringrules
import sklearn.metrics
from scipy.stats import norm

from jaxprob import metrics

RNG = np.random.default_rng(0)
N, K = 40, 5
Y = RNG.normal(size=N) * 2
MEAN, STD = RNG.normal(size=N), np.exp(RNG.normal(size=N))
MEANS, STDS = 2 * RNG.normal(size=(K, N)), np.exp(0.7 * RNG.normal(size=(K, N)))
WEIGHTS = RNG.dirichlet(np.ones(K))


def _mixture_cdf(u, i, weights=WEIGHTS):
    return np.sum(weights * norm.cdf((u - MEANS[:, i]) / STDS[:, i]))


def test_errors_are_scikit_learns(x64):
    expected = sklearn.metrics.root_mean_squared_error(Y, MEAN)
    np.testing.assert_allclose(metrics.rmse(Y, MEAN), expected, rtol=1e-12)
    expected = sklearn.metrics.mean_absolute_error(Y, MEAN)
    np.testing.assert_allclose(metrics.mae(Y, MEAN), expected, rtol=1e-12)


def test_gaussian_nll_is_scipys(x64):
    values = metrics.gaussian_nll(Y, MEAN, STD, per_example=True)
    np.testing.assert_allclose(values, -norm.logpdf(Y, MEAN, STD), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_mixture_nll_is_the_mixtures_own(x64, weights):
    w = np.full(K, 1 / K) if weights is None else weights
    density = np.sum(w[:, None] * norm.pdf(Y, MEANS, STDS), axis=0)
    values = metrics.gaussian_mixture_nll(
        Y, MEANS, STDS, weights=weights, per_example=True
    )
    np.testing.assert_allclose(values, -np.log(density), rtol=1e-12)
    members = [metrics.gaussian_nll(Y, m, s) for m, s in zip(MEANS, STDS, strict=True)]
    assert jnp.mean(values) < np.sum(w * np.array(members))  # Jensen


@pytest.mark.slow
def test_mixture_nll_far_in_the_tail_is_finite():
    y, zero = np.array([300.0], "f"), np.zeros((2, 1), "f")
    value = metrics.gaussian_mixture_nll(y, zero, zero + 1)
    np.testing.assert_allclose(value, 45000 + 0.5 * np.log(2 * np.pi), rtol=1e-6)


def _crps_by_quadrature(cdf, y):
    """The definition: int (F(u) - 1[y <= u])^2 du, on both sides of the step."""
    below = scipy.integrate.quad(lambda u: cdf(u) ** 2, -60.0, y, limit=400)[0]
    above = scipy.integrate.quad(lambda u: (1 - cdf(u)) ** 2, y, 60.0, limit=400)[0]
    return below + above


@pytest.mark.slow
def test_gaussian_crps_is_its_integral_and_scoringrules(x64):
    values = metrics.crps_gaussian(Y, MEAN, STD, per_example=True)
    expected = scoringrules.crps_normal(Y, MEAN, STD)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    for i in range(10):
        integral = _crps_by_quadrature(
            lambda u, i=i: norm.cdf(u, MEAN[i], STD[i]), Y[i]
        )
        np.testing.assert_allclose(values[i], integral, rtol=1e-6)


@pytest.mark.slow
def test_mixture_crps_is_its_integral_and_scoringrules(x64):
    values = metrics.crps_gaussian_mixture(
        Y, MEANS, STDS, weights=WEIGHTS, per_example=True
    )
    expected = scoringrules.crps_mixnorm(
        Y, MEANS.T, STDS.T, np.broadcast_to(WEIGHTS, (N, K))
    )
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    for i in range(10):
        integral = _crps_by_quadrature(lambda u, i=i: _mixture_cdf(u, i), Y[i])
        np.testing.assert_allclose(values[i], integral, rtol=1e-6)


@pytest.mark.slow
def test_mixture_of_one_is_the_gaussian(x64):
    for mixed, plain in (
        (metrics.crps_gaussian_mixture, metrics.crps_gaussian),
        (metrics.gaussian_mixture_nll, metrics.gaussian_nll),
        (metrics.pit_gaussian_mixture, metrics.pit_gaussian),
    ):
        expected = plain(Y, MEAN, STD)
        repeated = mixed(Y, np.stack([MEAN] * 3), np.stack([STD] * 3))
        np.testing.assert_allclose(
            mixed(Y, MEAN[None], STD[None]), expected, rtol=1e-12
        )
        np.testing.assert_allclose(repeated, expected, rtol=1e-12)


def test_sample_crps_is_scoringrules_fair_estimator(x64):
    samples = MEAN + STD * RNG.normal(size=(25, N))
    values = metrics.crps_samples(Y, samples, per_example=True)
    scores: Any = scoringrules.crps_ensemble
    expected = scores(Y, samples.T, estimator="fair")
    np.testing.assert_allclose(values, expected, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("num", [2, 3, 10])
def test_sample_crps_is_unbiased_for_few_samples(x64, num):
    repeats = 40_000
    y = np.full(repeats, 0.7)
    samples = np.random.default_rng(num).normal(size=(num, repeats))
    values = np.asarray(metrics.crps_samples(y, samples, per_example=True))
    exact = float(metrics.crps_gaussian(np.array(0.7), np.array(0.0), np.array(1.0)))
    error = values.std() / np.sqrt(repeats)
    assert abs(values.mean() - exact) < 5 * error
    # The estimator that divides by n^2 is off by E|X - X'| / (2 n) = 1 / (n sqrt(pi)):
    # the test could tell.
    assert 1 / (num * np.sqrt(np.pi)) > 8 * error


@pytest.mark.slow
def test_sample_crps_survives_a_large_offset():
    samples = (1e4 + RNG.normal(size=(200, 1))).astype(np.float32)
    near = metrics.crps_samples(np.zeros(1, "f"), samples - np.float32(1e4))
    far = metrics.crps_samples(np.full(1, 1e4, "f"), samples)
    np.testing.assert_allclose(far, near, rtol=1e-4)


@pytest.mark.slow
def test_proper_scores_are_least_for_the_truth(x64):
    y = np.random.default_rng(1).normal(size=20_000)
    level = 0.8
    half = norm.ppf(0.5 + level / 2)

    def scores(mean, std):
        mean, std = np.full_like(y, mean), np.full_like(y, std)
        return [
            metrics.gaussian_nll(y, mean, std),
            metrics.crps_gaussian(y, mean, std),
            metrics.interval_score(
                y, mean - half * std, mean + half * std, level=level
            ),
        ]

    truth = np.array(scores(0.0, 1.0))
    for wrong in ((0.2, 1.0), (-0.2, 1.0), (0.0, 1.3), (0.0, 0.75)):
        assert (np.array(scores(*wrong)) > truth).all()


def test_interval_score_is_scoringrules(x64):
    lower, upper = MEAN - STD, MEAN + 2 * STD
    values = metrics.interval_score(Y, lower, upper, level=0.9, per_example=True)
    expected = scoringrules.interval_score(Y, lower, upper, 0.1)
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    assert (np.asarray(values) > upper - lower + 1e-9).any()  # some were missed


def test_coverage_of_true_intervals_is_binomial(x64):
    n, level = 20_000, 0.9
    y = np.random.default_rng(2).normal(size=n)
    half = np.full(n, norm.ppf(0.95))
    error = np.sqrt(level * (1 - level) / n)
    assert abs(float(metrics.coverage(y, -half, half)) - level) < 5 * error
    np.testing.assert_allclose(metrics.interval_width(-half, half), 2 * half[0])


def test_ends_are_inside_and_may_be_infinite():
    y = np.array([0.0, 1.0, 5.0], "f")
    lower, upper = np.array([0.0, 0.0, -np.inf], "f"), np.array([1.0, 1.0, np.inf], "f")
    inside = metrics.coverage(y, lower, upper, per_example=True)
    assert inside.tolist() == [True, True, True]
    assert metrics.interval_width(lower, upper) == np.inf


def test_pit_is_the_cdf(x64):
    np.testing.assert_allclose(
        metrics.pit_gaussian(Y, MEAN, STD), norm.cdf(Y, MEAN, STD), rtol=1e-10
    )
    pit = metrics.pit_gaussian_mixture(Y, MEANS, STDS, weights=WEIGHTS)
    expected = [_mixture_cdf(y, i) for i, y in enumerate(Y)]
    np.testing.assert_allclose(pit, expected, rtol=1e-10)


@pytest.mark.slow
def test_pit_of_the_mixture_is_the_integral_of_its_density(x64):
    def density(u):
        return np.exp(
            -metrics.gaussian_mixture_nll(
                np.array([u]), MEANS[:, :1], STDS[:, :1], weights=WEIGHTS
            )
        )

    integral = scipy.integrate.quad(density, -40, Y[0], limit=200)[0]
    pit = metrics.pit_gaussian_mixture(
        Y[:1], MEANS[:, :1], STDS[:, :1], weights=WEIGHTS
    )
    np.testing.assert_allclose(pit[0], integral, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("num", [1, 4, 50])
@pytest.mark.parametrize("tied", [False, True])
def test_sample_pit_is_uniform_for_any_number_of_samples(x64, getkey, num, tied):
    rng = np.random.default_rng(num)
    draws = rng.normal(size=(num + 1, 5000))
    if tied:
        draws = np.round(draws)
    pit = metrics.pit_samples(draws[0], draws[1:], key=getkey())
    assert scipy.stats.kstest(np.asarray(pit), "uniform").pvalue > 1e-6
    wrong = metrics.pit_samples(draws[0] + 0.3, draws[1:], key=getkey())
    assert scipy.stats.kstest(np.asarray(wrong), "uniform").pvalue < 1e-9


def test_quantile_calibration_error_is_the_distance_from_uniform(x64):
    pit = np.random.default_rng(3).beta(0.5, 0.7, size=300)
    error = metrics.quantile_calibration_error(pit, num_levels=20_000)
    # int |F(p) - p| dp on a grid of its own, from the empirical distribution function.
    p = (np.arange(400_000) + 0.5) / 400_000
    expected = np.mean(np.abs(np.searchsorted(np.sort(pit), p) / 300 - p))
    np.testing.assert_allclose(error, expected, atol=1e-4)


def test_quantile_calibration_error_by_hand(x64):
    # Levels 1/4, 1/2, 3/4; shares below: 2/4, 2/4, 3/4.
    pit = np.array([0.1, 0.2, 0.7, 0.9])
    error = metrics.quantile_calibration_error(pit, num_levels=3)
    np.testing.assert_allclose(error, (0.25 + 0.0 + 0.0) / 3)


@pytest.mark.slow
def test_bootstrap_error_of_a_mean_is_the_textbooks(x64, getkey):
    values = np.random.default_rng(4).gamma(2.0, size=400)
    value, error = metrics.bootstrap(jnp.mean, values, key=getkey(), num_resamples=4000)
    mean, textbook = metrics.mean_and_error(values)
    np.testing.assert_allclose(value, values.mean())
    np.testing.assert_allclose(mean, values.mean())
    np.testing.assert_allclose(textbook, scipy.stats.sem(values), rtol=1e-12)
    # The spread of 4000 draws is known to 1 / sqrt(8000); twice that for skewness.
    np.testing.assert_allclose(error, textbook, rtol=8 / np.sqrt(8000))


@pytest.mark.slow
def test_bootstrap_keeps_rows_together(getkey):
    y = np.arange(50, dtype="f")
    _, error = metrics.bootstrap(metrics.rmse, y, y + 1, key=getkey(), num_resamples=20)
    np.testing.assert_allclose(error, 0.0, atol=1e-6)


def test_error_along_the_leading_axis(x64):
    values = np.random.default_rng(5).normal(size=(20, 3))
    mean, error = metrics.mean_and_error(values)
    np.testing.assert_allclose(mean, values.mean(0))
    np.testing.assert_allclose(error, scipy.stats.sem(values, axis=0))


@pytest.mark.slow
def test_a_score_has_a_gradient(x64):
    def score(std):
        return metrics.crps_gaussian(jnp.array(0.0), jnp.array(0.0), std)

    # CRPS = s (2 phi(0) - 1 / sqrt(pi)).
    exact = 2 * norm.pdf(0) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(jax.grad(score)(jnp.array(1.3)), exact, rtol=1e-10)


@pytest.mark.parametrize("offset", [1e8, -3e10])
def test_an_offset_in_double_precision_changes_no_metric_of_outcomes(offset):
    rng = np.random.default_rng(0)
    y, mean = rng.normal(size=(2, 40, 2))
    std, samples = np.full((40, 2), 0.5), rng.normal(size=(7, 40, 2))
    ends = mean - 1.0, mean + 1.0
    for metric, located, rest in (
        (metrics.rmse, (y, mean), ()),
        (metrics.mae, (y, mean), ()),
        (metrics.gaussian_nll, (y, mean), (std,)),
        (metrics.crps_samples, (y, samples), ()),
        (metrics.coverage, (y, *ends), ()),
    ):
        expected = metric(*located, *rest)
        found = metric(*(a + offset for a in located), *rest)
        np.testing.assert_allclose(found, expected, rtol=1e-3)
