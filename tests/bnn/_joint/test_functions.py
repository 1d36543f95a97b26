"""Draws of functions, and the joint Gaussian of a linearised network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn
from jaxprob.testing import LinearGaussian


@pytest.fixture
def curved(x64):
    """Laplace of a small network with few rows: far from linear in its weights."""
    key = jax.random.key(0)
    model = eqx.nn.MLP(1, 2, 5, 1, activation=jnp.tanh, key=key, dtype=jnp.float64)
    x = np.linspace(-1.0, 1.0, 6)[:, None]
    y = np.concatenate([np.sin(3 * x), np.cos(3 * x)], 1)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.IsotropicNormal(1.0), 6)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)))
    state = method.init(model, key=key)
    return method.posterior(state, [(x, y)])


X_NEW = np.array([[-2.0], [0.1], [0.2], [3.0]])


@pytest.mark.slow
def test_joint_distribution_of_a_linear_model_is_exact(x64):
    problem = LinearGaussian.random(key=jax.random.key(1), num_data=12, dim=3)
    method = bnn.Laplace(bnn.MAP(problem.log_joint(), optax.sgd(0.1)))
    state = method.init(problem.model(key=jax.random.key(2)), key=jax.random.key(3))
    posterior = method.posterior(state, [(problem.x, problem.y)])
    x = np.random.default_rng(0).normal(size=(4, 3))
    _, covariance = posterior.joint_output_distribution(x)
    features = np.concatenate([x, np.ones((4, 1))], 1)
    exact = features @ np.asarray(problem.covariance) @ features.T
    assert np.allclose(covariance[:, 0, :, 0], exact, rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_functions_have_the_joint_distribution(curved):
    """Means and covariances over draws, over two rows and two outputs, in 5 s.e."""
    num = 2000
    keys = jax.random.split(jax.random.key(5), num)
    factorised = curved.factorised()

    @jax.jit
    def draw(key):
        return jax.vmap(factorised.sample_function(key=key))(jnp.asarray(X_NEW))

    found = np.asarray(jax.vmap(draw)(keys)).reshape(num, -1)
    mean, covariance = curved.joint_output_distribution(X_NEW)
    covariance = np.asarray(covariance).reshape(8, 8)
    sd = np.sqrt(np.diag(covariance))
    centred = (found - np.asarray(mean).ravel()) / sd
    assert np.all(np.abs(centred.mean(0)) < 5 / np.sqrt(num))
    correlation = covariance / np.outer(sd, sd)
    error = np.sqrt((1 + correlation**2) / num)
    assert np.all(np.abs(centred.T @ centred / num - correlation) < 5 * error)
    # Each row by itself is what `output_distribution` says, and what `predict` draws.
    rows = np.asarray(curved.output_distribution(X_NEW)[1])
    joint = covariance.reshape(4, 2, 4, 2)
    assert np.allclose(joint[np.arange(4), :, np.arange(4)], rows, atol=1e-12)


@pytest.mark.slow
def test_weights_alone_are_wider_than_the_functions(curved):
    """So the docstring of `sample` says; else this test and that sentence may go."""
    keys = jax.random.split(jax.random.key(6), 500)
    factorised = curved.factorised()

    @jax.jit
    def both(key):
        x = jnp.asarray(X_NEW[1:3])
        return (
            jax.vmap(factorised.sample(key=key))(x),
            jax.vmap(factorised.sample_function(key=key))(x),
        )

    weights, functions = jax.vmap(both)(keys)
    assert np.all(np.std(weights, 0) > 1.2 * np.std(functions, 0))


def test_a_function_of_any_posterior_is_a_draw_of_predict(getkey):
    """`predict` of a mixture of two expansions and a point uses these functions."""
    model = eqx.nn.MLP(1, 2, 3, 1, key=getkey())
    moved = jax.tree.map(lambda a: 1.1 * a if eqx.is_array(a) else a, model)
    point = bnn.PointPosterior(model)
    function = point.sample_function(key=getkey())
    x = jnp.ones(1)
    assert np.array_equal(function(x), model(x))
    linear = bnn.LinearizedModel(model, moved)
    step = jax.tree.map(
        jnp.subtract, *(eqx.filter(m, eqx.is_array) for m in (moved, model))
    )
    _, rest = eqx.partition(model, eqx.is_array)
    out, tangent = jax.jvp(
        lambda p: eqx.combine(p, rest)(x), (eqx.filter(model, eqx.is_array),), (step,)
    )
    assert np.allclose(linear(x), out + tangent, rtol=1e-6)


class BackwardsOnly(eqx.Module):
    """A model whose derivative exists backwards alone, as of an ODE by diffrax."""

    weight: jax.Array

    def __call__(self, x):
        @jax.custom_vjp
        def f(w, x):
            return jnp.sin(w * x)

        f.defvjp(
            lambda w, x: (f(w, x), (w, x)),
            lambda saved, g: (g * saved[1] * jnp.cos(saved[0] * saved[1]), g * 0.0),
        )
        return f(self.weight, x)


def test_a_model_with_a_rule_for_backwards_alone_is_linearised(x64):
    mean, draw = BackwardsOnly(jnp.array(0.7)), BackwardsOnly(jnp.array(0.9))
    found = eqx.filter_jit(bnn.LinearizedModel(mean, draw))(jnp.array(2.0))
    assert np.allclose(found, np.sin(1.4) + 0.2 * 2 * np.cos(1.4), atol=1e-12)
