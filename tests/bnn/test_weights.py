"""A row of weight 2 is the row twice, in every method."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian

from .test_every_module import METHODS

DRAW_FOR_EACH_ROW = {
    "MeanFieldVI, flipout": "signs of each example",
    "MeanFieldVI, local": "noise of each example",
    "AnchoredMAP": "perturbs equal rows alike; its draws are tested below",
    "MCDropout": "masks of each example",
}
WEIGHTS = np.array([2.0, 1.0, 0.0, 3.0, 0.0, 1.0, 1.0, 0.0])
ONES = np.ones(8)


def repeated(array) -> Any:
    """The rows as often as their weights say, which are as many as there are."""
    return np.repeat(array, WEIGHTS.astype(int), axis=0)


def problem():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 2))
    return x, np.sin(x[:, :1]) + 0.1 * rng.normal(size=(8, 1))


def net():
    return eqx.nn.MLP(2, 1, 3, 1, jnp.tanh, key=jax.random.key(0))


def log_joint():
    return bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(METHODS) - set(DRAW_FOR_EACH_ROW)))
def test_a_weight_of_two_is_the_row_twice(name, getkey, x64):
    x, y = problem()
    method, key = METHODS[name](log_joint()), getkey()

    @eqx.filter_jit
    def run(*data):
        state = method.init(net(), key=key)
        for _ in range(2):
            state, info = method.update(state, data, key=key)
        if name.startswith("Laplace"):
            return eqx.filter(method.posterior(state, [data]), eqx.is_array), info
        return eqx.filter(state, eqx.is_inexact_array), info

    weighted = jax.tree.leaves(run(x, y, WEIGHTS))
    twice = jax.tree.leaves(run(repeated(x), repeated(y), ONES))
    for a, b in zip(weighted, twice, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)
    plain = jax.tree.leaves(run(x, y, ONES))
    assert any(np.max(abs(a - b)) > 1e-5 for a, b in zip(plain, weighted, strict=True))


def test_the_table_has_every_method():
    assert set(DRAW_FOR_EACH_ROW) < set(METHODS)


def test_the_weighted_log_joint_is_that_of_the_repeated_rows(getkey, x64):
    x, y = problem()
    value = eqx.filter_jit(log_joint())
    key = getkey()
    plain = value(net(), (x, y), key=key)
    weighted = value(net(), (x, y, WEIGHTS), key=key)
    np.testing.assert_allclose(
        weighted, value(net(), (repeated(x), repeated(y)), key=key)
    )
    np.testing.assert_allclose(plain, value(net(), (x, y, ONES), key=key))
    assert abs(weighted - plain) > 0.1
    # Minibatches of one row: their mean is the value of the whole set.
    each = [
        value(net(), (x[i : i + 1], y[i : i + 1], WEIGHTS[i : i + 1]), key=key)
        for i in range(8)
    ]
    np.testing.assert_allclose(np.mean(each), weighted)
    # Padding, and integers as weights.
    batch = jaxprob.Batch((x, y, WEIGHTS.astype(int)), np.arange(8) < 5)
    first = value(net(), (x[:5], y[:5], WEIGHTS[:5]), key=key)
    np.testing.assert_allclose(value(net(), batch, key=key), first)


@pytest.mark.slow
def test_laplace_with_weights_is_the_exact_posterior(getkey, x64):
    problem = LinearGaussian.random(key=getkey(), num_data=8, dim=2)
    rows = LinearGaussian(repeated(problem.x), repeated(problem.y))
    optimum = eqx.tree_at(
        lambda m: (m.weight, m.bias),
        problem.model(key=getkey()),
        (rows.mean[None, :2], rows.mean[2:]),
    )
    method = bnn.Laplace(bnn.MAP(problem.log_joint(), optax.sgd(0.1)))
    data = (problem.x, problem.y, WEIGHTS)
    posterior = method.posterior(method.init(optimum), [data])
    np.testing.assert_allclose(posterior.log_evidence(), rows.log_evidence, rtol=1e-8)
    assert isinstance(posterior.curvature, bnn.FullCurvature)
    precision = posterior.curvature.matrix + jnp.diag(posterior.tau())
    np.testing.assert_allclose(precision, rows.precision, rtol=1e-8)
    other = bnn.with_noise(posterior, 0.7)
    exact = LinearGaussian(rows.x, rows.y, 0.7)  # the mode is that of noise 0.5
    delta = rows.mean - exact.mean
    np.testing.assert_allclose(
        other.log_evidence(),
        exact.log_evidence - 0.5 * delta @ exact.precision @ delta,
        rtol=1e-8,
    )


@pytest.mark.slow
def test_anchored_members_are_draws_of_the_weighted_posterior(getkey, x64):
    """The optimum of each member in closed form, from its gradient and curvature."""
    problem = LinearGaussian.random(key=getkey(), num_data=8, dim=1)
    rows = LinearGaussian(repeated(problem.x), repeated(problem.y))
    method = bnn.AnchoredMAP(problem.log_joint(), optax.sgd(1.0))
    model = problem.model(key=getkey())
    data = (problem.x, problem.y, WEIGHTS)

    def optimum(key):
        state = method.init(model, key=key)
        slope = method.gradient(state, data, key=key)
        # The gradient is that of -log p / N, a quadratic form.
        step = jnp.linalg.solve(rows.precision, 8 * problem.vector(slope))
        return problem.vector(model) - step

    draws = eqx.filter_jit(jax.vmap(optimum))(jax.random.split(getkey(), 5_000))
    np.testing.assert_allclose(jnp.mean(draws, 0), rows.mean, atol=0.03)
    np.testing.assert_allclose(jnp.cov(draws.T), rows.covariance, rtol=0.1, atol=3e-3)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-ONES, r"weight row 0 is -1\.0: .* not negative"),
        (np.ones((8, 1)), r"weight has shape \(8, 1\) and x has 8 rows"),
        (np.arange(8), "weight is int64 where .* leave out what is no weight"),
        (np.array(["a"] * 8), "weight is <U1 where floating-point numbers"),
    ],
)
def test_wrong_weights_are_rejected(weight, message):
    x, y = problem()
    with pytest.raises((ValueError, TypeError), match=message):
        bnn.check_data(x, y, weight, likelihood=bnn.NormalLikelihood(0.5))


def test_a_batch_of_four_is_rejected():
    x, y = problem()
    method = bnn.MAP(log_joint(), optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"or \(x, y, weight\).* length 4"):
        method.check(net(), (x, y, ONES, ONES))


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker", "diagonal"])
def test_twice_the_weight_of_all_rows_is_twice_the_curvature(structure, x64):
    """The sum of these weights is not the number of rows, unlike in the table."""
    x, y = problem()
    method = bnn.Laplace(bnn.MAP(log_joint(), optax.sgd(0.1)), structure)
    state = method.init(net())

    @eqx.filter_jit
    def posterior(weight):
        return method.posterior(state, [(x, y, weight)])

    once, twice = posterior(WEIGHTS), posterior(2.0 * WEIGHTS)
    tau = once.tau()
    delta = jnp.linspace(-1.0, 1.0, tau.size)
    prior = jnp.sum(tau * delta**2)
    quadratics = [p.curvature.quadratic(tau, delta) - prior for p in (once, twice)]
    np.testing.assert_allclose(quadratics[1], 2.0 * quadratics[0], rtol=1e-9)
    np.testing.assert_allclose(twice.log_likelihood, 2.0 * once.log_likelihood)
    assert once.num_targets == 8.0
    assert twice.num_targets == 16.0
