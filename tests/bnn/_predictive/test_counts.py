"""Quantiles, intervals and calibration of whole numbers, against scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob import bnn, metrics

RATES = np.array([[0.02, 0.3], [2.0, 7.5], [40.0, 900.0]], np.float32)  # rows, samples


def mixture(values, cdf):
    return np.mean([cdf(values, RATES[:, s]) for s in range(2)], 0)


def test_quantiles_of_a_mixture_of_poissons_are_the_first_to_reach_the_level():
    predictive = bnn.Predictive(jnp.log(RATES), bnn.PoissonLikelihood())
    assert predictive.has_quantiles
    for q in (0.05, 0.4, 0.95):
        found = np.asarray(predictive.quantile(q))
        assert found.dtype == np.int32
        grid = np.arange(1200)
        table = np.stack([mixture(g, scipy.stats.poisson.cdf) for g in grid])
        np.testing.assert_array_equal(found, np.argmax(table >= q, axis=0))


def test_an_interval_has_its_probability():
    predictive = bnn.Predictive(jnp.log(RATES), bnn.PoissonLikelihood())
    lower, upper = predictive.interval(0.9)
    found = predictive.probability(lower, upper)
    cdf = scipy.stats.poisson.cdf
    expected = mixture(np.asarray(upper), cdf) - mixture(np.asarray(lower) - 1, cdf)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.all(found >= 0.9 - 1e-6)
    # Without one of its ends more than a tail is outside.
    assert np.all(predictive.cdf(upper - 1) < 0.95)
    assert np.all(predictive.cdf(lower) >= 0.05 - 1e-6)


def test_a_density_has_the_probability_of_an_interval_too():
    outputs = jnp.zeros((2, 1))
    predictive = bnn.Predictive(outputs, bnn.NormalLikelihood(1.0))
    found = predictive.probability(jnp.full(2, -1.0), jnp.full(2, 2.0))
    np.testing.assert_allclose(found, 0.8185946, rtol=1e-5)


def zero_inflated(rate):
    return dist.ZeroInflatedPoisson(0.3, rate)


FAMILIES = {
    "binomial": (
        lambda p: dist.Binomial(10, p),
        scipy.stats.binom(10, 0.3).cdf,
        0.3,
    ),
    "geometric": (
        dist.GeometricProbs,
        lambda y: scipy.stats.geom(0.3).cdf(np.asarray(y) + 1),
        0.3,
    ),
    "negative binomial": (
        lambda m: dist.NegativeBinomial2(m, 3.0),
        scipy.stats.nbinom(3.0, 3.0 / (3.0 + 4.0)).cdf,
        4.0,
    ),
    "zero-inflated": (
        zero_inflated,
        lambda y: 0.3 + 0.7 * scipy.stats.poisson(2.0).cdf(y),
        2.0,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_counts_of_any_family_have_intervals(name):
    likelihood, cdf, output = FAMILIES[name]
    predictive = bnn.Predictive(jnp.full((12, 1), output), likelihood)
    y = np.arange(12, dtype=np.int32)
    np.testing.assert_allclose(predictive.cdf(y), cdf(y), rtol=2e-5)
    for q in (0.1, 0.6, 0.97):
        exact = np.argmax(cdf(np.arange(200)) >= q)
        np.testing.assert_array_equal(predictive.quantile(q), exact)


def test_the_randomised_pit_of_true_rates_is_uniform(getkey):
    rates = np.exp(np.random.default_rng(0).normal(size=3000)).astype(np.float32)
    y = np.random.default_rng(1).poisson(rates).astype(np.int32)

    def pit(rates):
        predictive = bnn.Predictive(jnp.log(rates)[:, None], bnn.PoissonLikelihood())
        return metrics.pit_counts(
            predictive.cdf(y), predictive.cdf(y - 1), key=getkey()
        )

    assert scipy.stats.kstest(pit(rates), "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(pit(1.3 * rates), "uniform").pvalue < 1e-6
    # Without the random part F(y) is not uniform for the true rates.
    known = bnn.Predictive(jnp.log(rates)[:, None], bnn.PoissonLikelihood())
    assert scipy.stats.kstest(known.cdf(y), "uniform").pvalue < 1e-6


def test_the_arguments_of_the_pit_are_in_order():
    low, high = np.array([0.1, 0.2]), np.array([0.3, 0.4])
    with pytest.raises(ValueError, match=r"give F\(y\) first"):
        metrics.pit_counts(low, high, key=jax.random.key(0))
