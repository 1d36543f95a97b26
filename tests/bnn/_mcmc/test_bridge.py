"""The evidence from draws, where it is known."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.special import gammaln

from jaxprob import bnn, tree
from jaxprob.bnn._mcmc.multi_start import at_modes
from jaxprob.testing import LinearGaussian, LogisticRegression


def exact_draws(problem, num, key):
    """Independent draws from the posterior of a linear regression, as chains."""
    factor = jnp.linalg.cholesky(problem.covariance)
    noise = np.asarray(jax.random.normal(key, (4, num, len(factor))))
    draws = jnp.asarray(np.asarray(problem.mean) + noise @ np.asarray(factor).T)
    model = problem.model(key=jax.random.key(0))
    unravel = tree.ravel(model)[1]
    return bnn.DrawsPosterior(
        jax.vmap(jax.vmap(unravel))(draws), eqx.filter(model, False)
    )


@pytest.fixture
def linear(getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


def test_evidence_of_a_linear_regression_is_exact(linear, getkey):
    """A normal posterior is its own bridge: hardly any error with few draws."""
    method = bnn.NUTS(linear.log_joint())
    data = linear.x, linear.y
    found = bnn.log_evidence(
        method, exact_draws(linear, 500, getkey()), data, key=getkey()
    )
    assert abs(found.value - float(linear.log_evidence)) < 0.05
    assert found.standard_error < 0.03
    assert repr(found).startswith("log evidence -")


@pytest.mark.slow
def test_the_standard_error_is_that_of_repeated_runs(linear, getkey):
    method = bnn.NUTS(linear.log_joint())
    data = linear.x, linear.y
    runs = [
        bnn.log_evidence(method, exact_draws(linear, 40, getkey()), data, key=getkey())
        for _ in range(15)
    ]
    errors = np.array([run.value for run in runs]) - float(linear.log_evidence)
    claimed = np.sqrt(np.mean([run.standard_error**2 for run in runs]))
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(15)
    assert 0.5 < errors.std() / claimed < 1.7


@pytest.mark.slow
def test_evidence_of_a_logistic_regression_is_that_of_quadrature(getkey):
    problem = LogisticRegression.random(key=getkey(), num_data=30, dim=2)
    data = problem.x, problem.y
    method = bnn.NUTS(problem.log_joint(), num_warmup=300, num_draws=500)
    model = problem.model(key=getkey())
    posterior = bnn.run_chains(method, model, data, key=getkey(), progress=False)
    found = bnn.log_evidence(method, posterior, data, key=getkey())
    assert abs(found.value - problem.log_evidence) < 0.1
    assert found.standard_error < 0.1


def test_what_has_no_evidence(linear, getkey):
    data, key = (linear.x, linear.y), getkey()
    few = exact_draws(linear, 2, getkey())
    method = bnn.NUTS(linear.log_joint())
    with pytest.raises(ValueError, match=r"8 draws of 4 random numbers.* at least 12"):
        bnn.log_evidence(method, few, data, key=key)
    cold = bnn.NUTS(linear.log_joint(temperature=0.5))
    with pytest.raises(ValueError, match=r"temperature=0\.5"):
        bnn.log_evidence(cold, few, data, key=key)


class Rate(eqx.Module):
    """A rate of counts, with an edge at zero."""

    rate: jax.Array

    def __call__(self, x):
        return jnp.log(self.rate) + 0.0 * x


def test_evidence_with_an_edge_is_that_of_gamma_and_poisson(getkey):
    """Draws of the conjugate posterior; the bridge is in unconstrained coordinates."""
    shape, rate, counts = 2.0, 0.5, np.array([3, 5, 2, 4], np.int32)
    total, num = counts.sum(), len(counts)
    joint = bnn.LogJoint(bnn.PoissonLikelihood(), dist.Gamma(shape, rate), num)
    draws = jax.random.gamma(getkey(), shape + total, (4, 500)) / (rate + num)
    rest: Any = Rate(cast(Any, None))
    posterior = bnn.DrawsPosterior(Rate(draws), rest)
    data = np.zeros(num, np.float32), counts
    exact = (
        shape * np.log(rate)
        - gammaln(shape)
        + gammaln(shape + total)
        - (shape + total) * np.log(rate + num)
        - gammaln(counts + 1.0).sum()
    )
    found = bnn.log_evidence(bnn.NUTS(joint), posterior, data, key=getkey())
    assert abs(found.value - exact) < 0.05
    start = at_modes(
        bnn.MultiStart(4), bnn.NUTS(joint), Rate(jnp.ones(())), data, key=getkey()
    )
    # The mode of the logarithm of a Gamma variable.
    assert np.allclose(np.exp(start), (shape + total) / (rate + num), rtol=1e-2)
