"""A run that goes on from a state: the bits of one longer run, or an error by name."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._training.carry_over import carry_over

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0]], np.float32)).astype(np.float32)
MODEL = eqx.nn.Linear(2, 1, key=jax.random.key(0))
RUN = {"key": jax.random.key(3), "batch_size": 8, "progress": False}


@jaxprob.mean_loss
def noisy(model, example, *, key):
    x, y = example
    x = x + 0.1 * jax.random.normal(key, x.shape)
    return jnp.sum((model(x) - y) ** 2)


def descent(optimizer=None):
    optimizer = optax.adam(1e-2) if optimizer is None else optimizer
    return jaxprob.GradientDescent(noisy, optimizer, ema=jaxprob.EMA(0.9))


LEARNER = descent()


def mean_field():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), len(X))
    return bnn.MeanFieldVI(joint, optax.adam(1e-2))


class Unsized:
    def __iter__(self):
        return iter([(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[4:12], Y[4:12])])


DATA = {"arrays": (X, Y), "list": list(Unsized()), "unsized": Unsized()}


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(
    ("first", "whole"),
    [
        ({"num_epochs": 2}, {"num_epochs": 4}),
        ({"num_steps": 4}, {"num_steps": 11}),
        ({"num_steps": 4}, {"num_epochs": 3}),
    ],
)
def test_it_has_the_bits_of_one_longer_run(kind, first, whole):
    learner, data = LEARNER, DATA[kind]
    run = {**RUN, "validation": (X, Y)}
    expected, history = jaxprob.fit(learner, MODEL, data, **run, **whole)
    state, before = jaxprob.fit(learner, MODEL, data, **run, **first)
    step = int(before[-1]["step"])
    state, after = jaxprob.fit(
        learner, MODEL, data, **run, **whole, state=state, step=step
    )
    assert eqx.tree_equal(state, expected)
    joined = before + after
    if step % 3 == 0:
        assert joined == history
    else:  # one epoch is in two parts
        assert [entry["step"] for entry in joined] == sorted(
            [entry["step"] for entry in history] + [step]
        )
        assert joined[2]["val_loss"] == history[1]["val_loss"]


@pytest.mark.slow
def test_a_method_of_inference_goes_on_too():
    method = mean_field()
    expected, _ = jaxprob.fit(method, MODEL, (X, Y), **RUN, num_steps=7)
    state, _ = jaxprob.fit(method, MODEL, (X, Y), **RUN, num_steps=2)
    state, _ = jaxprob.fit(
        method, MODEL, (X, Y), **RUN, num_steps=7, state=state, step=2
    )
    assert eqx.tree_equal(state, expected)


@pytest.mark.slow
def test_the_state_of_an_error_goes_on():
    learner = LEARNER

    class Breaks(Unsized):
        broken = True

        def __iter__(self):
            yield from list(super().__iter__())[: 2 if self.broken else None]
            if self.broken:
                raise KeyboardInterrupt

    data = Breaks()
    with pytest.raises(KeyboardInterrupt) as caught:
        jaxprob.fit(learner, MODEL, data, **RUN, num_epochs=2, steps_per_dispatch=1)
    error: Any = caught.value
    data.broken = False
    found, _ = jaxprob.fit(
        learner, MODEL, data, **RUN, num_epochs=2, state=error.state, step=error.step
    )
    expected, _ = jaxprob.fit(learner, MODEL, Unsized(), **RUN, num_epochs=2)
    assert error.step == 2
    assert eqx.tree_equal(found, expected)


def by_hand(state, optimizer, steps) -> Any:
    """The same steps by optax alone, on the batches of the first epochs."""
    train_key = jax.random.split(RUN["key"], 4)[1]
    params, opt_state = state.model, state.opt_state
    batches = list(Unsized())
    for step in steps:
        key = jax.random.fold_in(train_key, step)
        grads = jax.grad(lambda p, k=key, b=batches[step % 3]: noisy(p, b, key=k)[0])(
            params
        )
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    return params


CHANGED = {
    "rate": optax.adam(1e-3),
    "schedule": optax.adam(optax.linear_schedule(1e-2, 0.0, 6)),
    "clipping": optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGED)
def test_a_new_setting_has_effect_and_the_state_carries_over(name):
    first = {
        "rate": optax.adam(1e-2),
        "schedule": optax.adam(lambda count: jnp.asarray(1e-2)),
        "clipping": optax.chain(optax.clip_by_global_norm(9.0), optax.sgd(0.1)),
    }[name]
    data = Unsized()
    with jax.numpy_dtype_promotion("standard"):
        state, _ = jaxprob.fit(descent(first), MODEL, data, **RUN, num_steps=4)
        found, _ = jaxprob.fit(
            descent(CHANGED[name]), MODEL, data, **RUN, num_steps=6, state=state, step=4
        )
        expected = by_hand(state, CHANGED[name], (4, 5))
        without = by_hand(state, first, (4, 5))
    assert np.allclose(found.model.weight, expected.weight, atol=1e-6)
    assert not np.allclose(found.model.weight, without.weight, atol=1e-4)


def test_another_optimiser_is_named_and_begins_anew_by_its_name():
    state, _ = jaxprob.fit(descent(), MODEL, (X, Y), **RUN, num_steps=2)
    other = descent(optax.sgd(0.1))
    settings = {**RUN, "num_steps": 4, "state": state, "step": 2}
    with pytest.raises(ValueError, match=r"learner has no opt_state\.0\..*reset='opt_"):
        jaxprob.fit(other, MODEL, (X, Y), **settings)
    new, _ = jaxprob.fit(other, MODEL, (X, Y), **settings, reset="opt_state")
    assert int(new.step) == 4
    wider = eqx.nn.Linear(3, 1, key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"model\.weight is float32\[1, 2\] in the st"):
        carry_over(state, descent().init(wider))
    with pytest.raises(
        ValueError, match=r"reset='optimizer' is no part.*ema, model, o"
    ):
        carry_over(state, state, reset="optimizer")
    fresh = descent().init(MODEL)
    part = carry_over(state, fresh, reset=["opt_state.0.mu", "ema"])
    assert eqx.tree_equal(part.opt_state[0].mu, fresh.opt_state[0].mu)
    assert eqx.tree_equal(part.ema, fresh.ema)
    assert eqx.tree_equal(part.opt_state[0].nu, state.opt_state[0].nu)
    assert eqx.tree_equal(part.model, state.model)


def test_a_hyper_parameter_of_two_values_is_asked_about():
    def injected(rate):
        return descent(optax.inject_hyperparams(optax.sgd)(learning_rate=rate))

    state, fresh = injected(0.1).init(MODEL), injected(0.2).init(MODEL)
    name = "opt_state.hyperparams.learning_rate"
    with pytest.raises(ValueError, match=r"rate is 0\.1.* 0\.2.*reset='opt_s"):
        carry_over(state, fresh)
    new = carry_over(state, fresh, reset=name)
    assert np.isclose(new.opt_state.hyperparams["learning_rate"], 0.2)
    assert eqx.tree_equal(carry_over(state, injected(0.1).init(MODEL)), state)
    scheduled = injected(optax.linear_schedule(0.1, 0.0, 5)).init(MODEL)
    later = eqx.tree_at(
        lambda s: s.opt_state.hyperparams,
        scheduled,
        {"learning_rate": jnp.asarray(0.05)},
    )
    assert eqx.tree_equal(carry_over(later, scheduled), later)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": 0}, "state is given without step"),
        ({"step": 3}, "step is given without state"),
        ({"state": 0, "step": -1}, "step=-1: a whole number, at least 0"),
        ({"state": 0, "step": 4}, "num_steps=4, and the state has made 4 steps"),
    ],
)
def test_what_cannot_go_on_is_said(settings, message):
    if "state" in settings:
        settings = {**settings, "state": descent().init(MODEL)}
    with pytest.raises(ValueError, match=message):
        jaxprob.fit(descent(), MODEL, (X, Y), **RUN, num_steps=4, **settings)
