"""MAP is ridge regression where it can be; roles of leaves; a prior by leaf."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.testing import LinearGaussian


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


def train(method, model, batch, num, key):
    state = method.init(model)

    def step(state, key):
        return method.update(state, batch, key=key)

    arrays, static = eqx.partition(state, eqx.is_array)

    @jax.jit
    def run(arrays):
        def body(arrays, key):
            state, info = step(eqx.combine(arrays, static), key)
            return eqx.filter(state, eqx.is_array), info

        return jax.lax.scan(body, arrays, jax.random.split(key, num))

    arrays, info = run(arrays)
    return eqx.combine(arrays, static), info


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_map_is_ridge_regression_at_any_temperature(problem, getkey, temperature):
    joint = problem.log_joint(temperature=temperature)
    method = bnn.MAP(joint, optax.sgd(0.1 * temperature, momentum=0.8))
    batch = (problem.x, problem.y)
    state, info = train(method, problem.model(key=getkey()), batch, 2000, getkey())
    model = method.model(state)
    assert np.allclose(problem.vector(model), problem.mean, rtol=0.0, atol=1e-8)
    value = -info["log_joint"][-1] / 30
    assert np.allclose(info["loss"][-1], value, rtol=1e-12)
    joint_by_hand = (-30 * info["nll"][-1] + info["log_prior"][-1]) / temperature
    assert np.allclose(info["log_joint"][-1], joint_by_hand, rtol=1e-12)
    assert eqx.tree_equal(method.posterior(state).sample(key=getkey()), model)
    assert np.allclose(
        method.evaluate(state, batch, key=getkey())["loss"], info["loss"][-1]
    )


def test_only_random_leaves_have_the_prior(problem, getkey):
    """Ridge on the bias alone; weights are points. Frozen leaves do not move."""
    joint = eqx.tree_at(lambda j: j.prior, problem.log_joint(), dist.Normal(0.0, 0.1))
    method = bnn.MAP(joint, optax.sgd(0.1, momentum=0.8), random="bias")
    model = problem.model(key=getkey())
    state, _ = train(method, model, (problem.x, problem.y), 2000, getkey())
    design = problem.design(problem.x)
    penalty = jnp.diag(jnp.array([0.0, 0.0, 0.0, problem.noise**2 / 0.1**2]))
    expected = jnp.linalg.solve(design.T @ design + penalty, design.T @ problem.y)
    assert np.allclose(
        problem.vector(method.model(state)), expected, rtol=0.0, atol=1e-8
    )
    frozen = bnn.MAP(joint, optax.sgd(1e-4), random="bias", point=False)
    state, _ = train(frozen, model, (problem.x, problem.y), 3, getkey())
    assert np.array_equal(state.model.weight, model.weight)
    assert not np.array_equal(state.model.bias, model.bias)


@pytest.mark.slow
def test_the_noise_is_learned_as_a_point(problem, getkey):
    """At the optimum the noise variance is the mean squared residual."""
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), dist.Normal(0.0, 1.0), 30)
    model = bnn.LearnedNoise(problem.model(key=getkey()), scale=1.0)
    method = bnn.MAP(joint, optax.adam(2e-2))
    state, _ = train(method, model, (problem.x, problem.y), 3000, getkey())
    fitted = method.model(state)
    residual = problem.y - jax.vmap(fitted.model)(problem.x)
    assert np.allclose(fitted.scale**2, np.mean(residual**2), rtol=1e-4)


@pytest.mark.slow
def test_a_model_without_random_leaves_or_outside_the_prior_is_refused(getkey):
    model = eqx.nn.Linear(3, "scalar", key=getkey())
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), dist.HalfNormal(1.0), 3)
    with pytest.raises(ValueError, match="random=False makes no leaf random"):
        bnn.MAP(joint, optax.sgd(1.0), random=False).init(model)
    with pytest.raises(ValueError, match="the prior of weight"):
        bnn.MAP(joint, optax.sgd(1.0)).init(model)
    with pytest.raises(ValueError, match="means no leaf of the tree"):
        bnn.MAP(joint, optax.sgd(1.0), random="head").init(model)
    for method in (bnn.MeanFieldVI(joint, optax.sgd(1.0)),):
        with pytest.raises(ValueError, match="the prior of weight"):
            method.init(model)
