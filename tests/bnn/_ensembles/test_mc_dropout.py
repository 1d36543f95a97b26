"""MC dropout on a linear model, where optimum and variance are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn

P = 0.3


@pytest.fixture
def problem(x64, getkey):
    x = jax.random.normal(getkey(), (20, 3))
    y = x @ jnp.array([1.0, -2.0, 0.5]) + 0.1 * jax.random.normal(getkey(), (20,))
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), dist.Normal(0.0, 2.0), num_data=20)
    gram = x.T @ x
    best = jnp.linalg.solve(
        gram + P / (1 - P) * jnp.diag(jnp.diag(gram)) + jnp.eye(3) / 4, x.T @ y
    )
    linear = eqx.nn.Linear(3, "scalar", use_bias=False, key=getkey())
    model = eqx.nn.Sequential([eqx.nn.Dropout(P), linear])
    at_best = eqx.tree_at(lambda m: m.layers[1].weight, model, best[None])
    method = bnn.MCDropout(bnn.MAP(joint, optax.sgd(1.0)))
    return method, at_best, best, (x, y)


@pytest.mark.slow
def test_the_gradient_vanishes_at_the_known_optimum(problem, getkey):
    method, model, best, batch = problem
    state = method.init(model, key=getkey())

    def step(key):
        new, _ = method.update(state, batch, key=key)
        return new.model.layers[1].weight[0] - best

    num = 4000
    steps = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(getkey(), num)))
    assert np.all(np.abs(steps.mean(0)) < 5 * steps.std(0) / np.sqrt(num))
    away = eqx.tree_at(lambda m: m.layers[1].weight, model, best[None] * 1.2)
    state = method.init(away, key=getkey())
    off = np.asarray(jax.jit(jax.vmap(step))(jax.random.split(getkey(), num)))
    off = off - 0.2 * np.asarray(best)
    assert np.any(np.abs(off.mean(0)) > 8 * off.std(0) / np.sqrt(num))


@pytest.mark.slow
def test_the_predictive_variance_is_the_known_one(problem, getkey):
    method, model, best, (x, _) = problem
    posterior = method.posterior(method.init(model, key=getkey()))
    num = 4000
    predictive = bnn.predict(
        posterior, bnn.NormalLikelihood(1.0), x, key=getkey(), num_samples=num
    )
    outputs = np.asarray(predictive.outputs)
    variance = P / (1 - P) * np.asarray((x * best[None]) ** 2).sum(1)
    mean = np.asarray(x @ best)
    assert np.all(np.abs(predictive.mean - mean) < 5 * np.sqrt(variance / num))
    fourth = ((outputs - outputs.mean(1, keepdims=True)) ** 4).mean(1)
    error = np.sqrt((fourth - variance**2) / num)
    assert np.all(np.abs(predictive.epistemic - variance) < 5 * error)
    assert np.allclose(jax.vmap(posterior.mean())(x), mean)


def test_a_draw_is_one_function_of_the_input(problem, getkey):
    method, model, _, (x, _) = problem
    drawn = method.posterior(method.init(model, key=getkey())).sample(key=getkey())
    again = jax.vmap(lambda x: drawn(x, key=getkey()))(x)
    assert np.array_equal(jax.vmap(drawn)(x), again)


def test_a_model_without_dropout_is_rejected(problem, getkey):
    method, model, _, _ = problem
    with pytest.raises(ValueError, match=r"has no eqx\.nn\.Dropout"):
        method.init(model.layers[1], key=getkey())
