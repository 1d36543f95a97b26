"""The length of a run and the number of its epoch, as losses and schedules get them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 2)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0]], np.float32)).astype(np.float32)
MODEL = eqx.nn.Linear(2, 1, key=jax.random.key(0))
RUN = {"key": jax.random.key(3), "batch_size": 8, "progress": False}


@jaxprob.mean_loss
def counted(model, example, *, key, step, epoch):
    x, y = example
    metrics = {"at": step.astype(jnp.float32), "epoch": epoch.astype(jnp.float32)}
    return jnp.sum((model(x) - y) ** 2), metrics


def test_a_loss_gets_the_epoch_and_nothing_is_compiled_again():
    traces = []

    def loss(model, batch, *, key, epoch):
        traces.append(epoch)
        return jnp.sum(model.weight) * 0 + epoch.astype(jnp.float32), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    settings = {**RUN, "validation": (X, Y)}
    state, history = jaxprob.fit(learner, MODEL, (X, Y), **settings, num_epochs=2)
    made = len(traces)
    _, more = jaxprob.fit(
        learner, MODEL, (X, Y), **settings, num_epochs=5, state=state, step=6
    )
    entries = history + more
    assert [entry["loss"] for entry in entries] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [entry["val_loss"] for entry in entries] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(traces) == made


@pytest.mark.slow
def test_step_and_epoch_go_through_the_wrappers_of_a_loss():
    for loss in (counted, jaxprob.LowPrecisionLoss(counted)):
        learner = jaxprob.GradientDescent(loss, optax.sgd(1e-2))
        state = learner.init(MODEL)
        state = eqx.tree_at(
            lambda s: (s.step, s.epoch), state, (jnp.array(7), jnp.array(3))
        )
        info = learner.evaluate(state, (X, Y), key=RUN["key"])
        assert (float(info["at"]), float(info["epoch"])) == (7.0, 3.0)
    assert (
        jaxprob.GradientDescent(
            jaxprob.LowPrecisionLoss(lambda model, batch, *, key: (jnp.zeros(()), {})),
            optax.sgd(0.1),
        )
        .init(MODEL)
        .epoch
        is None
    )


def noisy(model, batch, *, key):
    (x, y), mask = jaxprob.unpack(batch)
    noise = jax.random.normal(key, y.shape)
    errors = (jax.vmap(model)(x) - y - noise)[:, 0] ** 2
    return jaxprob.masked_mean(errors, mask), {}


def noisy_in_epoch(model, batch, *, key, epoch):
    return noisy(model, batch, key=key)


def test_keys_are_those_of_a_run_that_counts_and_monitors_nothing():
    monitored = optax.chain(optax.sgd(0.1), jaxprob.reduce_on_plateau(patience=99))
    run = {**RUN, "num_epochs": 3, "validation": (X, Y)}
    found, history = jaxprob.fit(
        jaxprob.GradientDescent(noisy_in_epoch, monitored), MODEL, (X, Y), **run
    )
    plain, expected = jaxprob.fit(
        jaxprob.GradientDescent(noisy, optax.sgd(0.1)), MODEL, (X, Y), **run
    )
    # The scale makes another program, which may round the last digit otherwise.
    assert np.allclose(found.model.weight, plain.model.weight, atol=1e-6)
    losses = [[entry["val_loss"] for entry in h] for h in (history, expected)]
    assert np.allclose(*losses, rtol=1e-5)
    assert int(found.epoch) == 2


# The number of steps.

CASES: dict[str, tuple[Any, int]] = {
    "steps": ({"num_steps": 7}, 7),
    "epochs": ({"num_epochs": 3}, 9),
}


def decaying(total_steps):
    return optax.sgd(optax.linear_schedule(0.1, 0.0, total_steps))


@pytest.mark.parametrize("case", CASES)
def test_a_schedule_of_the_whole_run_is_the_one_with_its_number(case):
    length, total = CASES[case]
    learner = jaxprob.GradientDescent(counted, jaxprob.from_total_steps(decaying))
    plain = jaxprob.GradientDescent(counted, decaying(total))
    found, history = jaxprob.fit(learner, MODEL, (X, Y), **RUN, **length)
    expected, _ = jaxprob.fit(plain, MODEL, (X, Y), **RUN, **length)
    assert history[-1]["step"] == total
    assert eqx.tree_equal(found, expected)
    assert jaxprob.with_total_steps(learner, total) is jaxprob.with_total_steps(
        learner, total
    )
    assert jaxprob.with_total_steps(plain, total) is plain


@pytest.mark.slow
def test_each_optimiser_of_an_ensemble_is_built():
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), len(X))
    numbers = []

    def build(total_steps):
        numbers.append(total_steps)
        return decaying(total_steps)

    method = bnn.DeepEnsemble(bnn.MAP(joint, jaxprob.from_total_steps(build)), 2)
    jaxprob.fit(method, MODEL, (X, Y), **RUN, num_epochs=2)
    assert numbers == [6]


def test_what_is_not_known_or_not_outermost_is_said():
    optimizer = jaxprob.from_total_steps(decaying)
    learner = jaxprob.GradientDescent(counted, optimizer)

    class Unsized:
        def __iter__(self):
            return iter([(X, Y)])

    with pytest.raises(ValueError, match="give num_steps instead of num_epochs"):
        jaxprob.fit(learner, MODEL, Unsized(), **RUN, num_epochs=2)
    with pytest.raises(ValueError, match=r"jaxprob\.with_total_steps\(learner"):
        learner.update(learner.init(MODEL), (X, Y), key=RUN["key"])
    chained = optax.chain(optax.clip_by_global_norm(1.0), optimizer)
    with pytest.raises(ValueError, match="where it stands outermost"):
        jaxprob.fit(
            jaxprob.GradientDescent(counted, chained), MODEL, (X, Y), **RUN, num_steps=2
        )

    def no_optimizer(total_steps) -> Any:
        return 0.1

    with pytest.raises(TypeError, match=r"build\(2\) of jaxprob\.from_total_steps"):
        jaxprob.fit(
            jaxprob.GradientDescent(counted, jaxprob.from_total_steps(no_optimizer)),
            MODEL,
            (X, Y),
            **RUN,
            num_steps=2,
        )
