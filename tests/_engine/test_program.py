"""Programs are compiled once for a learner and go when it goes."""

import gc
import weakref

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._engine.per_object import PerObject
from jaxprob._engine.program import _PROGRAMS


class Owner:
    pass


def test_the_same_object_gets_what_was_made_for_it():
    cache, owner, made = PerObject(), Owner(), []

    def make():
        made.append(object())
        return made[-1]

    first = cache.get(owner, "a", make)
    assert cache.get(owner, "a", make) is first
    assert cache.get(owner, "b", make) is not first
    assert cache.get(Owner(), "a", make) is not first


def test_a_key_without_a_hash_is_never_found():
    cache, owner = PerObject(), Owner()
    assert cache.get(owner, [1], object) is not cache.get(owner, [1], object)


def test_what_was_made_goes_with_its_owner():
    cache, owner = PerObject(), Owner()
    held = weakref.ref(cache.get(owner, "a", Owner))
    assert held() is not None
    del owner
    gc.collect()
    assert held() is None


def mean_field():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=40)
    return bnn.MeanFieldVI(joint, optax.adam(1e-2))


def data(seed=0):
    x = np.random.default_rng(seed).normal(size=(40, 2)).astype(np.float32)
    return x, np.sin(x[:, 0])


def fit(method, model, rows, seed=0, **kwargs):
    key = jax.random.key(seed)
    return jaxprob.fit(
        method, model, rows, key=key, num_steps=12, progress=False, **kwargs
    )


def mlp(seed, width=8):
    return eqx.nn.MLP(2, "scalar", width, 1, key=jax.random.key(seed))


def steps_compiled(caplog, function):
    """How many programs of training or evaluation were compiled."""
    caplog.clear()
    with jax.log_compiles():
        function()
    names = ("jit(_several)", "jit(_single)", "jit(step)")
    done = [m for m in caplog.messages if m.startswith("Finished XLA compilation")]
    return sum(any(name in message for name in names) for message in done)


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_dispatch", [4, "auto"])
def test_a_second_fit_by_the_same_method_compiles_no_step(caplog, steps_per_dispatch):
    method = mean_field()

    def run(seed):
        return fit(
            method,
            mlp(seed),
            data(seed),
            seed,
            validation=data(9),
            steps_per_dispatch=steps_per_dispatch,
        )

    assert steps_compiled(caplog, lambda: run(0)) >= 2
    assert steps_compiled(caplog, lambda: run(1)) == 0
    # And it is the run that a method of its own would have made.
    state, history = run(1)
    method = mean_field()
    alone, alone_history = run(1)
    assert eqx.tree_equal(
        eqx.filter(state, eqx.is_array), eqx.filter(alone, eqx.is_array)
    )
    assert history == alone_history


def test_a_second_evaluation_compiles_nothing(caplog):
    method = mean_field()
    state = method.init(mlp(0))

    def run():
        jaxprob.evaluate(method, state, data(), key=jax.random.key(0))

    assert steps_compiled(caplog, run) >= 1
    assert steps_compiled(caplog, run) == 0


@pytest.mark.slow
def test_models_of_other_settings_get_programs_of_their_own():
    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.sum((model(x) - y) ** 2)

    class Scaled(eqx.Module):
        weight: jax.Array
        factor: float | int | bool

        def __call__(self, x):
            return jnp.sum(self.weight * x) * float(self.factor)

    learner = jaxprob.GradientDescent(loss, optax.sgd(1e-2))
    # 1, 1.0 and True have one hash.
    for factor in (1, 2, 1.0, True, 3.0):
        state, _ = fit(learner, Scaled(jnp.ones(2), factor), data())
        other = jaxprob.GradientDescent(loss, optax.sgd(1e-2))
        alone, _ = fit(other, Scaled(jnp.ones(2), factor), data())
        assert jnp.array_equal(state.model.weight, alone.model.weight)
        assert type(state.model.factor) is type(factor)


@pytest.mark.slow
def test_nothing_of_a_method_stays_behind():
    gc.collect()
    before = len(_PROGRAMS._made)
    method = mean_field()
    fit(method, mlp(0), data())
    assert len(_PROGRAMS._made) == before + 1
    held = weakref.ref(method)
    del method
    gc.collect()
    assert held() is None
    assert len(_PROGRAMS._made) == before


@pytest.mark.parametrize("steps_per_dispatch", [1, 4, "auto"])
def test_the_loss_is_traced_once(steps_per_dispatch):
    calls = []
    note = calls.append  # a list that it reads would be compared

    def loss(model, batch, *, key):
        note(key)
        (x, y), mask = jaxprob.unpack(batch)
        return jaxprob.masked_mean((jax.vmap(model)(x) - y) ** 2, mask), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(1e-2))
    fit(learner, mlp(0), data(), steps_per_dispatch=steps_per_dispatch, batch_size=10)
    assert len(calls) == 1
