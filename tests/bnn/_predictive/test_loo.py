"""LOO and WAIC of a linear regression, whose refits are in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob import bnn, tree
from jaxprob.bnn._predictive.pareto import fit_pareto, largest_shape, pareto_smooth
from jaxprob.testing import LinearGaussian

ROWS = 30


@pytest.fixture(scope="module")
def problem():
    make = jax.jit(
        lambda key: LinearGaussian.random(key=key, num_data=ROWS, dim=2, noise=1.0)
    )
    return make(jax.random.key(3))


@pytest.fixture(scope="module")
def posterior(problem):
    """Independent draws from the exact posterior, as four chains."""
    factor = jnp.linalg.cholesky(problem.covariance)
    noise = np.asarray(jax.random.normal(jax.random.key(4), (4, 1000, len(factor))))
    values = np.asarray(problem.mean) + noise @ np.asarray(factor).T
    model = problem.model(key=jax.random.key(0))
    unravel = tree.ravel(model)[1]
    draws = jax.vmap(jax.vmap(unravel))(jnp.asarray(values))
    return bnn.DrawsPosterior(draws, eqx.filter(model, False))


def refitted(problem):
    """Log densities of rows under the posterior of all others."""
    out = []
    for row in range(ROWS):
        keep = np.arange(ROWS) != row
        rest = LinearGaussian(problem.x[keep], problem.y[keep], problem.noise)
        mean, variance = rest.predictive(problem.x[row][None])
        out.append(scipy.stats.norm.logpdf(problem.y[row], mean[0], variance[0] ** 0.5))
    return np.array(out)


def test_loo_is_that_of_refits(problem, posterior):
    found = bnn.loo(posterior, problem.log_joint(), (problem.x, problem.y))
    exact = refitted(problem)
    assert np.allclose(found.pointwise, exact, atol=0.03)
    assert np.isclose(found.elpd, exact.sum(), atol=0.1)
    assert np.isclose(
        found.standard_error, np.sqrt(ROWS) * exact.std(ddof=1), rtol=0.02
    )
    mean, variance = problem.predictive(problem.x)
    inside = scipy.stats.norm.logpdf(problem.y, mean, np.sqrt(variance))
    assert np.isclose(found.num_parameters, (inside - exact).sum(), rtol=0.05)
    assert found.pareto_k is not None
    assert np.all(found.pareto_k < found.largest_k)
    assert "0 of 30 k-hat above 0.70" in repr(found)


def test_waic_is_that_of_its_moments(problem, posterior):
    found = bnn.waic(posterior, problem.log_joint(), (problem.x, problem.y))
    mean, variance = (np.asarray(a, np.float64) for a in problem.predictive(problem.x))
    lppd = scipy.stats.norm.logpdf(problem.y, mean, np.sqrt(variance))
    spread, off = variance - problem.noise**2, np.asarray(problem.y) - mean
    # The variance of the square of a normal variable.
    penalty = (2 * spread**2 + 4 * spread * off**2) / (4 * problem.noise**4)
    assert np.allclose(found.pointwise, lppd - penalty, atol=0.05)
    assert np.isclose(found.num_parameters, penalty.sum(), rtol=0.1)
    assert found.pareto_k is None


def test_an_outlier_has_a_large_k(problem, posterior):
    y = problem.y.at[4].add(12.0)
    with pytest.warns(UserWarning, match=r"k-hat are above 0.70, of row 4 \("):
        found = bnn.loo(posterior, problem.log_joint(), (problem.x, y))
    assert found.pareto_k is not None
    assert found.pareto_k.argmax() == 4
    with pytest.warns(UserWarning, match="the first of them row 4"):
        bnn.waic(posterior, problem.log_joint(), (problem.x, y))


class Row(eqx.Module):
    """All rows of a regression as one trajectory, some of them masked."""

    line: eqx.nn.Linear

    def __call__(self, x):
        inputs, mask = x
        return jax.vmap(self.line)(inputs), mask


def test_entries_of_a_trajectory_are_left_out_one_by_one(problem, posterior):
    joint = problem.log_joint()
    rows = bnn.loo(posterior, joint, (problem.x, problem.y))
    draws = bnn.DrawsPosterior(Row(posterior.draws), Row(posterior.rest))
    mask = np.arange(ROWS) < 20
    whole = bnn.LogJoint(
        lambda out: dist.Normal(out[0], problem.noise).mask(out[1]), joint.prior, 1
    )
    data = ((problem.x[None], mask[None]), problem.y[None])
    entries = bnn.loo(draws, whole, data, unit="entry")
    assert np.allclose(entries.pointwise, rows.pointwise[:20], atol=1e-5)
    vector = bnn.LogJoint(
        lambda out: dist.Normal(out[0], problem.noise).to_event(1), joint.prior, 1
    )
    again = bnn.waic(draws, vector, data, unit="entry")
    exact = bnn.waic(posterior, joint, (problem.x, problem.y))
    assert np.allclose(again.pointwise, exact.pointwise, atol=1e-5)
    correlated = bnn.LogJoint(
        lambda out: dist.MultivariateNormal(out[0], jnp.eye(ROWS)), joint.prior, 1
    )
    with pytest.raises(ValueError, match="write unit='row'"):
        bnn.loo(draws, correlated, data, unit="entry")


def test_the_difference_of_two_models_is_paired(problem, posterior):
    data = problem.x, problem.y
    right = bnn.loo(posterior, problem.log_joint(), data)
    wide = bnn.LogJoint(bnn.NormalLikelihood(4.0), bnn.IsotropicNormal(1.0), ROWS)
    wrong = bnn.loo(posterior, wide, data)
    difference, error = right.difference(wrong)
    assert np.isclose(difference, right.elpd - wrong.elpd)
    assert difference > 3 * error > 0
    with pytest.raises(ValueError, match="compare models on the same rows"):
        right.difference(bnn.loo(posterior, wide, (problem.x[:5], problem.y[:5])))


@pytest.mark.parametrize("shape", [0.3, 0.9])
def test_the_shape_of_a_tail_is_found(shape):
    """Ratios u**-k have a generalised Pareto tail of shape k."""
    levels = np.random.default_rng(0).uniform(size=(20_000, 4))
    weights, found = pareto_smooth(-shape * np.log(levels), np.ones(4))
    assert np.allclose(found, shape, atol=0.15)
    assert np.allclose(np.exp(weights).sum(axis=0), 1.0)


def test_a_pareto_distribution_is_fitted():
    draws = scipy.stats.genpareto(0.5, scale=3.0).rvs(
        5000, random_state=np.random.default_rng(1)
    )
    shape, scale = fit_pareto(np.sort(draws))
    assert np.isclose(shape, 0.5, atol=0.06)
    assert np.isclose(scale, 3.0, rtol=0.06)
    assert largest_shape(100) == 0.5
    assert largest_shape(10_000) == 0.7


def test_what_has_no_leave_one_out(problem, posterior, getkey):
    data, joint = (problem.x, problem.y), problem.log_joint()
    point = bnn.PointPosterior(posterior.atom(0))
    with pytest.raises(ValueError, match="a PointPosterior is 1 models"):
        bnn.loo(point, joint, data)
    with pytest.raises(ValueError, match=r"temperature=0\.5"):
        bnn.loo(posterior, problem.log_joint(temperature=0.5), data)
    sampled = bnn.bayesianize(posterior.atom(0))
    with pytest.raises(ValueError, match="is sampled: give key"):
        bnn.loo(sampled, joint, data)
    assert np.isfinite(bnn.loo(sampled, joint, data, key=getkey()).elpd)
