"""A learning rate that a validation changes, and the norm of the gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import jaxprob

from ..unhooked import unhooked

X = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0]], np.float32)
MODEL = eqx.nn.Linear(2, 1, key=jax.random.key(0))
RUN = {"key": jax.random.key(3), "batch_size": 4, "progress": False}
RULE = {"factor": 0.5, "patience": 2, "rtol": 0.05, "cooldown": 1, "min_scale": 0.1}


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


def test_the_scales_are_those_of_optax():
    values = np.random.default_rng(1).uniform(0.5, 1.5, 40).astype(np.float32)
    values[20:] *= 0.5
    params = {"w": jnp.ones(2)}
    optimizer = contrib.reduce_on_plateau(**RULE)
    state: Any = optimizer.init(params)
    ours: Any = jaxprob.reduce_on_plateau(**RULE).init(params)
    scales, update = [], jax.jit(optimizer.update)
    for value in values:
        with jax.numpy_dtype_promotion("standard"):
            _, state = update(params, state, value=value)
        ours = ours.observe(float(value))
        assert np.allclose(ours.rate_scale, state.scale)
        assert np.allclose(ours.best_value, state.best_value)
        assert int(ours.plateau_count) == int(state.plateau_count)
        assert int(ours.cooldown_count) == int(state.cooldown_count)
        scales.append(float(ours.rate_scale))
    assert len(set(scales)) > 3
    assert np.isclose(min(scales), 0.1)


def test_larger_may_be_better_and_values_may_be_negative():
    rule = jaxprob.reduce_on_plateau("val_accuracy", mode="max", patience=2)
    larger: Any = rule.init({})
    before = larger
    for value in (0.5, 0.6, 0.7, 0.7, 0.6):
        before, larger = larger, larger.observe(value)
    assert (float(before.rate_scale), float(larger.rate_scale)) == (
        1.0,
        np.float32(0.1),
    )
    smaller: Any = jaxprob.reduce_on_plateau(patience=1, rtol=0.1).init({})
    smaller = smaller.observe(-1.0)
    assert float(smaller.observe(-1.2).rate_scale) == 1.0
    assert float(smaller.observe(-1.05).rate_scale) < 1.0
    assert float(smaller.observe(float("nan")).rate_scale) < 1.0


@pytest.mark.parametrize("monitor", ["val_loss", "train_loss"])
def test_fit_scales_the_updates_by_the_metric(monitor):
    def trained(*parts, **kwargs):
        learner = jaxprob.GradientDescent(squared_error, optax.chain(*parts))
        run = {**RUN, "validation": (X, Y), **kwargs}
        return jaxprob.fit(learner, MODEL, (X, Y), **run)

    # No value improves by so much: every second epoch halves the rate.
    rule = {"factor": 0.5, "patience": 2, "atol": 1e6}
    plateau = jaxprob.reduce_on_plateau(monitor, **rule)
    state, history = trained(optax.sgd(0.1), plateau, num_epochs=6)
    expected = lambda k: jnp.where(k < 9, 0.1, jnp.where(k < 15, 0.05, 0.025))  # noqa: E731
    by_schedule, same = trained(optax.sgd(expected), num_epochs=6)
    assert np.allclose(state.model.weight, by_schedule.model.weight, atol=1e-6)
    assert [e["val_loss"] for e in history] == pytest.approx(
        [e["val_loss"] for e in same], rel=1e-5
    )
    assert float(state.opt_state[1].rate_scale) == 0.25


@pytest.mark.parametrize(
    ("monitor", "validation", "message"),
    [
        ("val_loss", None, r"no metric 'val_loss'.*Give validation data.*train_loss"),
        ("val_rmse", (X, Y), r"no metric 'val_rmse'.*loss.*val_loss"),
    ],
)
def test_a_metric_that_is_not_there_is_named(monitor, validation, message):
    optimizer = optax.chain(optax.sgd(0.1), jaxprob.reduce_on_plateau(monitor))
    learner = jaxprob.GradientDescent(squared_error, optimizer)
    with pytest.raises(ValueError, match=message):
        jaxprob.fit(learner, MODEL, (X, Y), **RUN, num_epochs=1, validation=validation)


@pytest.mark.parametrize(
    "settings", [{"mode": "least"}, {"factor": 2.0}, {"patience": 0}]
)
def test_settings_that_could_not_work_are_named(settings):
    with unhooked(), pytest.raises(ValueError, match=next(iter(settings))):
        jaxprob.reduce_on_plateau(**settings)


# The norm of the gradient.


@pytest.mark.parametrize("scaled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_norm_is_that_of_the_gradient_before_clipping(scaled):
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(0.1))
    optimizer = jaxprob.log_gradient_norm(clipped)
    optimizer = jaxprob.dynamic_loss_scale(optimizer) if scaled else optimizer
    learner = jaxprob.GradientDescent(squared_error, optimizer)
    state = learner.init(MODEL)
    new, info = learner.update(state, (X, Y), key=RUN["key"])
    plain = jaxprob.GradientDescent(squared_error, clipped)
    expected, _ = plain.update(plain.init(MODEL), (X, Y), key=RUN["key"])
    w, b = np.asarray(MODEL.weight, np.float64), np.asarray(MODEL.bias, np.float64)
    error = X @ w.T + b - Y
    exact = np.sqrt(np.sum((2 * error.T @ X / 12) ** 2) + np.mean(2 * error) ** 2)
    assert np.isclose(float(info["grad_norm"]), exact, rtol=1e-5)
    assert np.array_equal(new.model.weight, expected.model.weight)
    assert "grad_norm" not in learner.evaluate(state, (X, Y), key=RUN["key"])
    norm = jaxprob.GradientDescent(
        lambda model, batch, *, key: (jnp.sum(model.weight), {"grad_norm": 1.0}),
        optimizer,
    )
    with pytest.raises(ValueError, match="'grad_norm', which is the name of the norm"):
        norm.update(state, (X, Y), key=RUN["key"])
