import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import tree


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


@pytest.fixture
def problem(getkey):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + 0.3
    return eqx.nn.Linear(3, 1, key=getkey()), (x, y.astype(np.float32))


@pytest.mark.slow
def test_one_step_is_optax_by_hand(problem, getkey):
    model, batch = problem
    optimizer = optax.adam(1e-2)
    learner = jaxprob.GradientDescent(squared_error, optimizer)
    state, info = learner.update(learner.init(model), batch, key=getkey())
    x, y = batch

    def by_hand(model):
        return jnp.mean(jnp.sum((jax.vmap(model)(x) - y) ** 2, axis=-1))

    loss, grads = eqx.filter_value_and_grad(by_hand)(model)
    params = eqx.filter(model, eqx.is_inexact_array)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    expected = eqx.apply_updates(model, updates)
    assert jnp.allclose(info["loss"], loss)
    assert jnp.allclose(state.model.weight, expected.weight, atol=1e-7)
    assert jnp.allclose(state.model.bias, expected.bias, atol=1e-7)
    assert int(state.step) == 1


def test_frozen_leaves_stay_bit_equal_and_get_no_optimizer_state(problem, getkey):
    model, batch = problem
    learner = jaxprob.GradientDescent(
        squared_error, optax.adamw(1e-2), trainable=tree.freeze(model, "weight")
    )
    state = learner.init(model)
    assert "weight" not in str(tree.paths(state.opt_state).keys())
    for _ in range(3):
        state, _ = learner.update(state, batch, key=getkey())
    assert jnp.array_equal(state.model.weight, model.weight)
    assert not jnp.array_equal(state.model.bias, model.bias)


def test_nothing_to_train_is_refused(problem):
    model, _ = problem
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(1.0), trainable=False)
    with pytest.raises(ValueError, match="trainable=False leaves nothing"):
        learner.init(model)


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_is_its_recursion(problem, getkey, warmup):
    model, batch = problem
    learner = jaxprob.GradientDescent(
        squared_error, optax.sgd(1e-2), ema=jaxprob.EMA(0.9, warmup=warmup)
    )
    state = learner.init(model)
    average = np.asarray(model.weight)
    for step in range(5):
        state, _ = learner.update(state, batch, key=getkey())
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        average = decay * average + (1 - decay) * np.asarray(state.model.weight)
    assert np.allclose(learner.model(state).weight, average, atol=1e-6)
    assert not np.allclose(state.model.weight, average, atol=1e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_moves_in_half_precision(dtype, warmup):
    """Where 0.999 is one: towards parameters that stay where they are."""
    ema = jaxprob.EMA(0.999, warmup=warmup)
    ones = jnp.ones(3, dtype)
    average = jax.lax.fori_loop(
        0, 3000, lambda k, a: ema.update(a, ones, k), ema.init(jnp.zeros(3, dtype))
    )
    wide = jax.lax.fori_loop(
        0, 3000, lambda k, a: ema.update(a, jnp.ones(3), k), jnp.zeros(3)
    )
    assert np.allclose(average, wide, rtol=1e-5)
    assert average[0] > 0.95


def test_the_averaged_model_has_the_dtypes_of_the_model(problem, getkey):
    model, batch = problem
    model = jax.tree.map(lambda a: a.astype(jnp.bfloat16), model)
    batch = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), batch)
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(1e-2), ema=jaxprob.EMA())
    state, _ = learner.update(learner.init(model), batch, key=getkey())
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(learner.model(state))}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_outside_its_range_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        jaxprob.EMA(decay)


@pytest.mark.slow
def test_evaluation_uses_the_average_and_inference_mode(getkey):
    model = eqx.nn.Sequential([eqx.nn.Linear(2, 1, key=getkey()), eqx.nn.Dropout(0.9)])

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.sum((model(x, key=key) - y) ** 2)

    batch = (np.ones((4, 2), np.float32), np.zeros((4, 1), np.float32))
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1), ema=jaxprob.EMA(0.99))
    state, _ = learner.update(learner.init(model), batch, key=getkey())
    first = learner.evaluate(state, batch, key=getkey())["loss"]
    second = learner.evaluate(state, batch, key=getkey())["loss"]
    assert jnp.array_equal(first, second)
    plain = eqx.nn.inference_mode(learner.model(state))
    expected = jnp.mean(jax.vmap(plain)(batch[0]) ** 2)
    assert jnp.allclose(first, expected, rtol=1e-5)


@pytest.mark.slow
def test_the_learner_runs_under_jit_vmap_and_scan(problem, getkey):
    model, batch = problem
    learner = jaxprob.GradientDescent(squared_error, optax.adam(1e-2))
    key = getkey()
    plain, _ = learner.update(learner.init(model), batch, key=key)
    jitted, _ = eqx.filter_jit(learner.update)(learner.init(model), batch, key=key)
    assert jnp.allclose(plain.model.weight, jitted.model.weight, atol=1e-6)
    members = eqx.filter_vmap(
        lambda k: learner.update(
            learner.init(eqx.nn.Linear(3, 1, key=k)), batch, key=k
        )[0]
    )(jax.random.split(key, 3))
    assert members.model.weight.shape == (3, 1, 3)
