"""Any optax transformation, those that need the loss or its function included."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

import jaxprob
from jaxprob import bnn
from jaxprob._training.accumulate import accumulate

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
Y = X @ np.array([[1.0], [-2.0]], np.float32) + np.float32(0.5)
LINE = {"max_backtracking_steps": 8, "store_grad": True}

EXTRA = {
    "reduce_on_plateau": lambda: optax.chain(
        optax.sgd(0.1), contrib.reduce_on_plateau(patience=1, rtol=0.9)
    ),
    "polyak_sgd": lambda: optax.polyak_sgd(max_learning_rate=0.3),
    "backtracking": lambda: optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(**LINE)
    ),
    "sam": lambda: contrib.sam(optax.sgd(0.1), optax.sgd(0.05)),
    "opaque sam": lambda: contrib.sam(
        optax.sgd(0.1), optax.sgd(0.05), opaque_mode=True
    ),
    "sam in a chain": lambda: optax.chain(
        optax.clip_by_global_norm(0.5), contrib.sam(optax.sgd(0.1), optax.sgd(0.05))
    ),
}
# What each takes when it is called by hand.
NEEDS = {
    "reduce_on_plateau": {"value"},
    "polyak_sgd": {"value"},
    "backtracking": {"value", "grad", "value_fn"},
    "opaque sam": {"grad_fn"},
}


def loss(model, batch, *, key):
    x, y = batch
    return jnp.mean((jax.vmap(model)(x) - y) ** 2), {}


def line():
    return eqx.nn.Linear(2, 1, key=jax.random.key(0))


def weights(model):
    return np.concatenate([np.ravel(model.weight), np.ravel(model.bias)])


def by_hand(optimizer, needs, batches):
    params, rest = eqx.partition(line(), eqx.is_inexact_array)
    state = optimizer.init(params)

    for batch in batches:

        def value_fn(params, batch=batch):
            return loss(eqx.combine(params, rest), batch, key=None)[0]

        value, grad = jax.value_and_grad(value_fn)(params)
        every = {
            "value": value,
            "grad": grad,
            "value_fn": value_fn,
            "grad_fn": lambda params, _, f=value_fn: jax.grad(f)(params),
        }
        told = {name: every[name] for name in needs}
        updates, state = optimizer.update(grad, state, params, **told)
        params = optax.apply_updates(params, updates)
    return eqx.combine(params, rest), state


def trained(optimizer, batches, **kwargs):
    learner = jaxprob.GradientDescent(loss, optimizer, **kwargs)
    state = learner.init(line())
    stepper = jaxprob.Stepper(learner, state, key=jax.random.key(1))
    stepper(batches)
    return learner, stepper.fetch()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXTRA)
def test_an_optimizer_that_needs_more_than_a_gradient_is_optax_by_hand(name):
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in (0, 8, 4, 2)]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        expected, _ = by_hand(EXTRA[name](), NEEDS.get(name, set()), batches)
        _, state = trained(EXTRA[name](), batches)
    assert np.allclose(weights(state.model), weights(expected), atol=1e-5)
    assert not np.allclose(weights(state.model), weights(line()), atol=1e-3)


@pytest.mark.slow
def test_lbfgs_finds_the_least_squares():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, state = trained(optax.lbfgs(), [(X, Y)] * 8)
    assert np.allclose(weights(state.model), [1.0, -2.0, 0.5], atol=1e-4)


@pytest.mark.slow
def test_a_line_search_under_a_loss_scale_and_clipping_is_the_plain_one():
    line_search = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.sgd(1.0),
        optax.scale_by_backtracking_linesearch(**LINE),
    )
    batches = [(X, Y)] * 3
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        _, plain = trained(line_search, batches)
        _, scaled = trained(jaxprob.dynamic_loss_scale(line_search), batches)
    assert np.allclose(weights(plain.model), weights(scaled.model), atol=1e-5)


@pytest.mark.slow
def test_accumulated_batches_give_their_mean_loss():
    def last(batches, value):
        learner = jaxprob.GradientDescent(
            lambda model, x, *, key: (jnp.sum(model.weight) * 0 + x[0], {}),
            accumulate(EXTRA["reduce_on_plateau"](), 3),
        )
        state = learner.init(line())
        for batch in batches:
            state, _ = learner.update(state, batch, key=jax.random.key(0))
        return np.isclose(state.opt_state.inner[1].best_value, value)

    batches = [jnp.full((1,), value) for value in (1.0, 2.0, 6.0)]
    with jax.numpy_dtype_promotion("standard"):
        assert last(batches, 3.0)
        assert last([*batches, *(batch / 30 for batch in batches)], 0.1)


@pytest.mark.slow
def test_the_model_of_a_schedule_free_optimizer_is_its_average():
    optimizer = contrib.schedule_free_sgd(0.1, b1=0.9)
    with jax.numpy_dtype_promotion("standard"):
        learner, state = trained(optimizer, [(X, Y)] * 5)
        params = eqx.filter(state.model, eqx.is_inexact_array)
        average = contrib.schedule_free_eval_params(state.opt_state, params)
        model = learner.model(state)
    assert np.allclose(weights(model), weights(average), atol=1e-6)
    assert not np.allclose(weights(model), weights(state.model), atol=1e-4)


def test_a_line_search_under_accumulation_says_what_to_write():
    optimizer = optax.MultiSteps(EXTRA["backtracking"](), 2).gradient_transformation()
    with (
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(ValueError, match="larger batches"),
    ):
        trained(optimizer, [(X, Y)])


# What a loss returns.


def descent(metrics, value=1.0):
    def loss(model, batch, *, key):
        return value * jnp.sum(model.weight), metrics

    return jaxprob.GradientDescent(loss, optax.sgd(0.1))


@pytest.mark.parametrize(
    "value", [2, 2.0, True, np.float32(2), np.int64(2), np.ones(())]
)
def test_a_metric_may_be_any_real_number(value):
    learner = descent({"it": value})
    _, history = jaxprob.fit(
        learner,
        line(),
        (X, Y),
        key=jax.random.key(0),
        num_steps=3,
        validation=(X, Y),
        progress=False,
    )
    assert history[-1]["it"] == history[-1]["val_it"] == float(value)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": 1.0}, "'loss', which is the name of the loss itself"),
        ({"step": 1.0}, "'step', which is the name of the number of the step"),
        ({"a": 1.0, "a_step": 2.0}, "'a' and 'a_step' collide"),
        ({"loss_step": 2.0}, "'loss' and 'loss_step' collide"),
        ({"val_loss": 2.0}, "'loss' and 'val_loss' collide"),
        ({"a": "text"}, r"metrics\['a'\] is a str"),
        ({"a": None}, r"metrics\['a'\] is a NoneType"),
        ({"a": [1.0]}, r"metrics\['a'\] is a list"),
        ({"a": np.ones(3)}, r"metrics\['a'\] has shape \(3,\)"),
        ({1: 1.0}, "name of a metric is 1"),
        ([1.0], "returned a list as its metrics"),
    ],
)
def test_a_metric_that_cannot_be_one_is_refused_by_name(metrics, message):
    learner = descent(metrics)
    state = learner.init(line())
    for method in (learner.update, learner.evaluate):
        with pytest.raises((TypeError, ValueError), match=message):
            method(state, (X, Y), key=jax.random.key(0))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda model, batch, *, key: jnp.sum(model.weight), "returned an array of"),
        (lambda model, batch, *, key: (model.weight, {}), r"loss has shape \(1, 2\)"),
        (lambda model, batch, *, key: (jnp.array(1), {}), "dtype int32"),
        (lambda model, batch, *, key: ("a", {}), "a str as its value"),
    ],
)
def test_a_loss_of_another_form_is_refused(loss, message):
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    with pytest.raises((TypeError, ValueError), match=message):
        learner.update(learner.init(line()), (X, Y), key=jax.random.key(0))


def test_a_loss_that_cannot_be_called_as_one_is_refused_at_construction():
    def no_loss(model, x, y) -> Any:
        return 0.0

    with pytest.raises(TypeError, match="called as loss"):
        jaxprob.GradientDescent(no_loss, optax.sgd(0.1))
    exchanged: Any = (optax.sgd(0.1), lambda model, batch, *, key: 0.0)
    with pytest.raises(TypeError, match="optimizer"):
        jaxprob.GradientDescent(*exchanged)


def test_a_loss_that_asks_for_a_value_is_told_what_to_write():
    def loss(model, batch, *, key):
        value = jnp.sum(model.weight)
        return (value if value > 0 else -value), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    with pytest.raises(TypeError, match=r"jnp\.where"):
        jax.eval_shape(
            learner.update, learner.init(line()), (X, Y), key=jax.random.key(0)
        )


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (lambda state: (state, {"step": 1.0}), "named 'step'"),
        (lambda state: (state, {"a": "text"}), r"info\['a'\] is a str"),
        (lambda state: (state, None), "info is a NoneType"),
        (lambda state: state, r"return \(state, info\)"),
        (lambda state: ((state, jnp.ones(2)), {}), "another structure"),
        (lambda state: (state, {"loss": 1.0, "a": np.float32(2), "b": True}), None),
    ],
)
def test_what_a_learner_of_the_users_returns(out, message):
    class Own(jaxprob.AbstractLearner):
        def init(self, model, *, key):
            return model

        def update(self, state, batch, *, key):
            return out(state)

        def evaluate(self, state, batch, *, key):
            return out(state)[1]

        def model(self, state):
            return state

    def fit():
        return jaxprob.fit(
            Own(),
            line(),
            (X, Y),
            key=jax.random.key(0),
            num_steps=1,
            validation=(X, Y),
            progress=False,
        )

    if message is None:
        assert fit()[1] == [
            {
                "step": 1,
                "loss": 1,
                "a": 2,
                "b": 1,
                "val_loss": 1,
                "val_a": 2,
                "val_b": 1,
            }
        ]
        return
    with pytest.raises((TypeError, ValueError), match=message):
        fit()


def test_the_points_of_ivon_take_an_optimizer_that_needs_the_loss():
    log_joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.IsotropicNormal(), 16)
    method = bnn.IVON(
        log_joint, 0.1, random="weight", point_optimizer=EXTRA["reduce_on_plateau"]()
    )
    state = method.init(line())
    with jax.numpy_dtype_promotion("standard"):
        new, _ = method.update(state, (X, Y), key=jax.random.key(0))
    assert new.opt_state[1][1].best_value < state.opt_state[1][1].best_value
    assert not jnp.array_equal(new.model.bias, state.model.bias)


# The number of the step.


@pytest.mark.slow
@pytest.mark.parametrize("per_example", [False, True])
def test_a_loss_gets_the_number_of_its_step(per_example):
    def example_loss(model, example, *, key, step):
        return jnp.sum(model.weight) * 0 + step.astype(model.weight.dtype)

    def batch_loss(model, batch, *, key, step):
        return jnp.sum(model.weight) * 0 + step.astype(jnp.float32), {}

    loss = jaxprob.mean_loss(example_loss) if per_example else batch_loss
    loss = jaxprob.LowPrecisionLoss(loss) if per_example else loss
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    stepper = jaxprob.Stepper(learner, learner.init(line()), key=jax.random.key(0))
    found = stepper([(X, Y)] * 5)["loss"]
    assert list(found) == [0.0, 1.0, 2.0, 3.0, 4.0]
    last = learner.evaluate(stepper.state, (X, Y), key=jax.random.key(0))["loss"]
    assert last == 5.0
