"""Gaussians with correlations become the posterior itself on linear regression."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


def train(method, state, batch, num_steps, key):
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key):
        state, info = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), info

    arrays, info = jax.jit(lambda a, k: jax.lax.scan(step, a, k))(
        arrays, jax.random.split(key, num_steps)
    )
    return eqx.combine(arrays, static), info


def decaying(rate, num_steps):
    return optax.adam(optax.cosine_decay_schedule(rate, num_steps))


def full_rank(joint, num_steps, **kwargs):
    return bnn.FullRankVI(joint, decaying(0.03, num_steps), num_samples=4, **kwargs)


def low_rank(joint, num_steps, **kwargs):
    settings: Any = {"stick_the_landing": True} | kwargs
    return bnn.LowRankVI(
        joint, decaying(0.03, num_steps), rank=4, num_samples=4, **settings
    )


METHODS = {"full": full_rank, "low": low_rank}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_q_becomes_the_posterior_and_the_bound_the_evidence(
    problem, getkey, name, temperature
):
    """Four weights, and a rank of four: both families hold the posterior."""
    num_steps = 6000
    method = METHODS[name](problem.log_joint(temperature=temperature), num_steps)
    batch = (problem.x, problem.y)
    state = method.init(problem.model(key=getkey()), key=getkey())
    state, info = train(method, state, batch, num_steps, getkey())
    posterior = method.posterior(state)
    sd = np.sqrt(temperature * np.diag(problem.covariance))
    mean = problem.vector(posterior.mean())
    assert np.all(np.abs(mean - problem.mean) < 1e-4 * sd)
    error = posterior.covariance() - temperature * problem.covariance
    assert np.all(np.abs(error) < 1e-4 * np.outer(sd, sd))
    if temperature == 1.0:
        assert abs(info["elbo"][-1] - problem.log_evidence) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("make", [bnn.FullRankVI, bnn.LowRankVI])
def test_a_step_that_suits_mean_field_suits_correlations(make):
    """Of a network whose weights are narrow, with the same steps: a better bound."""
    x = np.linspace(-1.0, 1.0, 30, dtype=np.float32)[:, None]
    data = x, np.sin(3.0 * x[:, 0])
    model = eqx.nn.MLP(1, "scalar", 8, 1, jnp.tanh, key=jax.random.key(0))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.FanInNormal(2.0), num_data=30)
    bounds, key = [], jax.random.key(3)
    for method in (bnn.MeanFieldVI, make):
        learner = method(joint, decaying(0.03, 2000), num_samples=8)
        state = learner.init(model, key=jax.random.key(1))
        state, _ = train(learner, state, data, 2000, jax.random.key(2))
        judge = method(joint, optax.adam(0.03), num_samples=200)
        info = eqx.filter_jit(judge.evaluate)(state, data, key=key)
        bounds.append(info["elbo"])
    assert bounds[0] + 7.0 < bounds[1] < 0.0


def a_posterior(name, problem, key):
    """One with correlations, away from the optimum."""
    init_key, noise_key = jax.random.split(key)
    method = METHODS[name](problem.log_joint(), 1)
    state = method.init(problem.model(key=init_key), key=init_key)
    params, rest = eqx.partition(state.model, eqx.is_inexact_array)
    keys = jaxprob.leaf_keys(noise_key, params)
    params = jax.tree.map(
        lambda a, k: a + 0.3 * jax.random.normal(k, a.shape, a.dtype), params, keys
    )
    return eqx.combine(params, rest)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_algebra_is_that_of_the_dense_gaussian(problem, getkey, name):
    posterior = a_posterior(name, problem, getkey())
    dense = dist.MultivariateNormal(
        problem.vector(posterior.mean()), posterior.covariance()
    )
    drawn = posterior.sample(key=getkey())
    expected = dense.log_prob(problem.vector(drawn))
    assert np.allclose(posterior.log_prob(drawn), expected, rtol=0.0, atol=1e-10)
    assert np.allclose(posterior.entropy(), dense.entropy(), rtol=0.0, atol=1e-10)
    diagonal = np.diag(posterior.covariance())
    assert np.allclose(posterior.variance(), diagonal, rtol=1e-12)
    num = 20_000
    draws = jax.jit(jax.vmap(lambda k: problem.vector(posterior.sample(key=k))))(
        jax.random.split(getkey(), num)
    )
    white = np.linalg.solve(
        np.linalg.cholesky(posterior.covariance()), (draws - dense.loc[None]).T
    )
    error = np.sqrt((1 + np.eye(4)) / num)
    assert np.all(np.abs(white @ white.T / num - np.eye(4)) < 5 * error)
    assert np.all(np.abs(white.mean(1)) < 5 / np.sqrt(num))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_closed_form_divergence_is_that_of_the_dense_gaussian(
    problem, getkey, name, temperature
):
    posterior = a_posterior(name, problem, getkey())
    joint = problem.log_joint(temperature=temperature)
    method = METHODS[name](joint, 1, stick_the_landing=False)
    value = method._divergence(posterior, getkey())
    mean, cov = problem.vector(posterior.mean()), posterior.covariance()
    prior2 = problem.prior_scale**2
    expected_log_prior = -0.5 * (
        4 * np.log(2 * np.pi * prior2) + (mean @ mean + np.trace(cov)) / prior2
    )
    entropy = dist.MultivariateNormal(mean, cov).entropy()
    assert np.allclose(
        value, -expected_log_prior / temperature - entropy, rtol=0.0, atol=1e-10
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["normal", "laplace", "correlated"])
def test_sticking_and_closed_form_agree_in_the_mean(problem, getkey, name, kind):
    """The bound and its gradient, for priors with and without closed forms."""
    prior = {
        "normal": dist.Normal(0.0, 1.0),
        "laplace": dist.Laplace(0.0, 1.0),
        "correlated": lambda path, leaf: (
            dist.MultivariateNormal(jnp.zeros((1, 3)), 0.5 * jnp.eye(3) + 0.5)
            if path == "weight"
            else dist.Normal(0.0, 1.0)
        ),
    }[kind]
    joint = eqx.tree_at(
        lambda j: j.prior,
        problem.log_joint(),
        prior,
        is_leaf=lambda n: isinstance(n, dist.Distribution),
    )
    posterior = a_posterior(name, problem, getkey())
    num, batch = 1000, (problem.x, problem.y)
    out = []
    for sticking in (False, True):
        method = METHODS[name](joint, 1, stick_the_landing=sticking)
        loss = jax.value_and_grad(
            lambda q, key, m=method: m._loss(q, batch, key=key)[0]
        )
        values, grads = jax.jit(jax.vmap(loss, (None, 0)))(
            posterior, jax.random.split(getkey(), num)
        )
        flat = [np.asarray(g).reshape(num, -1) for g in jax.tree.leaves(grads)]
        out.append(np.concatenate([np.asarray(values)[:, None], *flat], axis=1))
    a, b = out
    error = np.sqrt((a.var(0) + b.var(0)) / num)
    assert np.all(np.abs(a.mean(0) - b.mean(0)) < 5 * error + 1e-9)


@pytest.mark.slow
def test_points_are_optimised_and_frozen_leaves_are_not(getkey):
    model = eqx.nn.MLP(2, "scalar", 4, 2, key=getkey())
    x = jax.random.normal(getkey(), (16, 2))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.FanInNormal(), num_data=16)
    method = bnn.LowRankVI(
        joint, optax.adam(1e-2), rank=2, random="layers.2", point="layers.1"
    )
    state = method.init(model, key=getkey())
    state, _ = train(method, state, (x, jnp.sin(x[:, 0])), 3, getkey())
    after = method.model(state)
    assert state.model.factor.shape == (2, 5)
    assert jnp.array_equal(after.layers[0].weight, model.layers[0].weight)
    assert not jnp.array_equal(after.layers[1].weight, model.layers[1].weight)
    assert not jnp.array_equal(after.layers[2].weight, model.layers[2].weight)
    predictive = bnn.predict(
        method.posterior(state), joint.likelihood, x, key=getkey(), num_samples=8
    )
    assert np.all(predictive.epistemic > 0)


@pytest.mark.slow
def test_bad_settings_are_rejected(problem):
    joint = problem.log_joint()
    with pytest.raises(ValueError, match="rank=0"):
        bnn.LowRankVI(joint, optax.sgd(0.1), rank=0)
    with pytest.raises(ValueError, match="num_samples=0"):
        bnn.FullRankVI(joint, optax.sgd(0.1), num_samples=0)
