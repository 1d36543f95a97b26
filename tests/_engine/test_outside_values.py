"""Python values that a loss reads from outside: never the old one without a word."""

import functools
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob._engine.outside_values import Outside

X = np.zeros((8, 2), np.float32)
GLOBAL = 1.0


def line():
    return eqx.nn.Linear(2, 1, key=jax.random.key(0))


def used(learner):
    """The loss of a step of `fit`, and that of its validation."""
    _, history = jaxprob.fit(
        learner,
        line(),
        [(X,)],
        key=jax.random.key(0),
        num_steps=1,
        validation=[(X,)],
        progress=False,
    )
    return history[-1]["loss"], history[-1]["val_loss"]


def learner_of(value):
    """A learner whose loss is what a function returns at its trace."""

    def loss(model, batch, *, key):
        return 0 * jnp.sum(model.weight) + value(), {}

    return jaxprob.GradientDescent(loss, optax.sgd(0.0))


def of_closure():
    held = [1.0]
    return learner_of(lambda: held[0]), lambda v: held.__setitem__(0, v)


def of_global():
    return learner_of(lambda: GLOBAL), functools.partial(
        globals().__setitem__, "GLOBAL"
    )


def of_attribute():
    config = types.SimpleNamespace(weights={"kl": 1.0})
    return learner_of(lambda: config.weights["kl"]), functools.partial(
        config.weights.__setitem__, "kl"
    )


def of_array():
    held = np.ones(3)
    return learner_of(lambda: float(held[1])), lambda v: held.__setitem__(1, v)


class Owner:
    def __init__(self):
        self.beta = 1.0

    @property
    def doubled(self):
        return 2 * self.beta

    def value(self):
        return self.doubled / 2


def of_method():
    owner = Owner()
    return learner_of(owner.value), lambda v: setattr(owner, "beta", v)


def of_scan():
    held = [1.0]

    def body(carry, x):
        return held[0], None

    def value():
        return jax.lax.scan(body, 0.0, None, length=2)[0]

    return learner_of(value), lambda v: held.__setitem__(0, v)


def of_mean_loss():
    held = [1.0]

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        (x,) = example
        return 0 * jnp.sum(model(x)) + held[0]

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    return learner, lambda v: held.__setitem__(0, v)


EVERY = [
    of_closure,
    of_global,
    of_attribute,
    of_array,
    of_method,
    of_scan,
    of_mean_loss,
]


@pytest.mark.parametrize("make", EVERY)
def test_a_value_that_changes_is_seen(make, monkeypatch):
    monkeypatch.setitem(globals(), "GLOBAL", 1.0)
    learner, change = make()
    before = Outside(learner)
    assert before.changed(Outside(learner)) == []
    change(2.0)
    assert len(before.changed(Outside(learner))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [of_closure, of_scan, of_mean_loss])
def test_a_second_fit_uses_the_value_of_now_and_warns_once(make):
    learner, change = make()
    assert used(learner) == (1.0, 1.0)
    change(2.0)
    with pytest.warns(UserWarning, match="changed since the step was compiled") as w:
        assert used(learner) == (2.0, 2.0)
    assert len(w) == 1
    change(3.0)  # a warning would be an error here
    assert used(learner) == (3.0, 3.0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*changed since the step was compiled")
def test_a_stepper_looks_when_its_sums_begin_anew():
    learner, change = of_closure()
    stepper = jaxprob.Stepper(learner, learner.init(line()), key=jax.random.key(0))
    found = []
    for value in (1.0, 2.0, 3.0):
        change(value)
        stepper.reset_totals()
        found += list(stepper([(X,)] * 2)["loss"])
    assert found == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]
    assert stepper.totals is not None
    assert stepper.totals.means() == {"loss": 3.0}


def test_what_a_loss_writes_itself_compiles_nothing_again():
    traces = []

    def loss(model, batch, *, key):
        traces.append(len(batch))
        return 0 * jnp.sum(model.weight), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    used(learner)
    number = len(traces)
    used(learner)
    assert len(traces) == number


@pytest.mark.parametrize("draw", ["numpy", "generator"])
def test_random_numbers_of_the_host_are_warned_of(draw):
    generator = np.random.default_rng(0)
    draws = {
        "numpy": lambda: np.random.normal(),  # noqa: NPY002
        "generator": lambda: generator.normal(),
    }
    learner = learner_of(draws[draw])
    stepper = jaxprob.Stepper(learner, learner.init(line()), key=jax.random.key(0))
    with pytest.warns(UserWarning, match="drew random numbers"):
        stepper([(X,)])


def test_what_is_seen_is_named():
    held = [1.0, "text"]
    loss = learner_of(lambda: held[0]).loss
    assert ("held[0]", "test_what_is_seen_is_named.<lambda>") in Outside(loss).values
    optimizers = optax.chain(optax.clip(1.0), optax.adamw(1e-3))
    assert Outside(jaxprob.GradientDescent(loss, optimizers)).values.keys() == (
        Outside(loss).values.keys()
    )


class Chain:
    """An object that names itself, of methods that call each other."""

    def __init__(self):
        self.value, self.again = 1.0, self

    def first(self):
        return self.again.second()

    def second(self):
        return self.value if self.again is self else self.again.first()


def test_objects_that_name_themselves_end():
    chain = Chain()
    seen = Outside(learner_of(chain.first))
    chain.value = 2.0
    (changed,) = {name for name, _ in seen.changed(Outside(learner_of(chain.first)))}
    assert changed.endswith(".value")
