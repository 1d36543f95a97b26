"""Some distributions have no distribution function in numpyro: that is said by name."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn

LIKELIHOODS = {
    "VonMises": lambda out: dist.VonMises(out, 2.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_what_needs_one_says_what_is_missing(name):
    model = eqx.nn.Linear(2, "scalar", key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 2))
    predictive = bnn.predict(
        bnn.PointPosterior(model), LIKELIHOODS[name], x, key=jax.random.key(2)
    )
    y = predictive.sample(key=jax.random.key(3))
    assert np.all(np.isfinite(predictive.log_prob(y)))
    with pytest.raises(NotImplementedError, match=f"{name} has no distribution func"):
        predictive.cdf(y)
    with pytest.raises(NotImplementedError, match="quantile and interval need"):
        predictive.interval(0.9)


@pytest.mark.slow
def test_several_outputs_that_correlate_have_what_needs_none():
    covariance = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    model = eqx.nn.Linear(2, 2, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 2))
    predictive = bnn.predict(
        bnn.PointPosterior(model),
        lambda out: dist.MultivariateNormal(out, covariance),
        x,
        key=jax.random.key(2),
    )
    assert "MultivariateNormal" in repr(predictive)
    assert not predictive.is_classification
    np.testing.assert_allclose(predictive.mean, jax.vmap(model)(x), rtol=1e-5)
    np.testing.assert_allclose(predictive.variance, np.ones((4, 2)), rtol=1e-5)
    with pytest.raises(ValueError, match="use log_prob and sample"):
        predictive.interval(0.9)


@pytest.mark.slow
def test_counts_have_one():
    model = eqx.nn.Linear(2, "scalar", key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (4, 2))
    predictive = bnn.predict(
        bnn.PointPosterior(model), bnn.PoissonLikelihood(), x, key=jax.random.key(2)
    )
    counts = np.array([0, 1, 2, 3])
    rates = np.exp(np.asarray(jax.vmap(model)(x)))
    terms = [1.0, 1.0, 0.5, 1.0 / 6.0]
    exact = [
        np.exp(-rate) * sum(terms[k] * rate**k for k in range(count + 1))
        for rate, count in zip(rates, counts, strict=True)
    ]
    assert np.allclose(predictive.cdf(counts), exact, rtol=1e-5)
