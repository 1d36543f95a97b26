"""Student's density in single precision, against SciPy's in double."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats

from jaxprob import bnn

from ...unhooked import unhooked

Z = np.linspace(-6.0, 6.0, 41, dtype=np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("df", [0.5, 4.0, 30.0, 1000.0, 1e5])
def test_it_is_scipys_at_any_number_of_degrees_of_freedom(df):
    found = bnn.StudentT(df, jnp.float32(0.3), jnp.float32(0.2)).log_prob(Z)
    expected = stats.t.logpdf(Z.astype(float), df, 0.3, 0.2)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)


def jump(family):
    """Of a data set's log density, beside its slope, where the scale hardly moves."""
    y = np.random.default_rng(0).normal(size=7000).astype(np.float32)

    @jax.jit
    def density(df, scale):
        return jnp.sum(family(df, jnp.float32(0.0), scale).log_prob(y))

    df = jnp.float32(1000.0)
    scales = jnp.float32(0.9) + jnp.arange(60, dtype=jnp.float32) * 1e-5
    found = np.diff([float(density(df, scale)) for scale in scales])
    expected = 1e-5 * float(jax.grad(density, 1)(df, scales[0]))
    return np.abs(found - expected).max()


@pytest.mark.slow
def test_the_density_of_a_data_set_does_not_move_in_jumps():
    assert jump(bnn.StudentT) < 0.02
    assert jump(dist.StudentT) > 0.5  # what is mended here


@pytest.mark.slow
def test_it_broadcasts_and_has_gradients_in_all_three():
    law = bnn.StudentT(jnp.array([3.0, 8.0]), jnp.zeros(2), jnp.float32(0.5))
    assert law.log_prob(jnp.ones(2)).shape == (2,)

    def density(df, loc, scale):
        return bnn.StudentT(df, loc, scale).log_prob(jnp.float32(0.4))

    at = (4.0, 0.1, 0.7)
    found = jax.grad(density, (0, 1, 2))(*map(jnp.float32, at))
    step = 1e-5
    for i, slope in enumerate(found):
        low, high = (
            stats.t.logpdf(0.4, *(v + s * step * (i == j) for j, v in enumerate(at)))
            for s in (-1, 1)
        )
        np.testing.assert_allclose(slope, (high - low) / (2 * step), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("df", [0.5, 1.0, 2.0, 2.5])
def test_quantiles_need_no_variance_and_no_mean(x64, df):
    """Below two degrees of freedom the bracket of Cantelli's inequality is infinite."""
    at = np.array([0.0, 300.0, -4e5])
    predictive = bnn.predict(
        bnn.PointPosterior(lambda x: x),
        bnn.StudentTLikelihood(2.0, df),
        jnp.asarray(at),
        key=jax.random.key(0),
    )
    for q in (0.01, 0.5, 0.9):
        expected = stats.t.ppf(q, df, at, 2.0)
        np.testing.assert_allclose(
            predictive.quantile(q), expected, rtol=1e-8, atol=1e-6
        )


def test_whole_numbers_are_numbers():
    y = jnp.float32(0.6)
    found = bnn.StudentT(4, 0, 1).log_prob(y)
    assert np.isclose(found, stats.t.logpdf(0.6, 4), rtol=1e-6)
    with unhooked():
        likelihood = bnn.StudentTLikelihood(2, df=4)
    found = likelihood(jnp.zeros(())).log_prob(y)
    assert np.isclose(found, stats.t.logpdf(0.6, 4, 0, 2), rtol=1e-6)
