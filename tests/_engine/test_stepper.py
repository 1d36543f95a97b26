import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob._engine.dispatch_size import (
    MAX_BYTES,
    MAX_STEPS,
    DispatchSize,
    choose_capacity,
)


@jaxprob.mean_loss
def noisy_loss(model, example, *, key):
    x, y = example
    noise_key, dropout_key = jax.random.split(key)
    x = x + 0.1 * jax.random.normal(noise_key, x.shape)
    error = jnp.sum((model(x, key=dropout_key) - y) ** 2)
    return error, {"error": error}


def mlp(key):
    first, second = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 16, key=first),
            eqx.nn.Lambda(jax.nn.gelu),
            eqx.nn.Dropout(0.2),
            eqx.nn.Linear(16, 1, key=second),
        ]
    )


def conv(key):
    first, second = jax.random.split(key)
    return eqx.nn.Sequential(
        [
            eqx.nn.Lambda(lambda x: x[None]),
            eqx.nn.Conv1d(1, 4, 3, padding=1, key=first),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(12, 1, key=second),
        ]
    )


def batches(num, size=8):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(num, size, 3)).astype(np.float32)
    return [(row, row[:, :1] ** 2) for row in x]


def trained(model, key, data, splits, capacity):
    learner = jaxprob.GradientDescent(
        noisy_loss, optax.adam(1e-2), ema=jaxprob.EMA(0.9)
    )
    stepper = jaxprob.Stepper(
        learner, learner.init(model), key=key, steps_per_dispatch=capacity
    )
    history = []
    for part in np.split(np.arange(len(data)), splits):
        history.append(stepper([data[i] for i in part]))
    loss = np.concatenate([np.asarray(part["loss"]) for part in history])
    return stepper, loss


@pytest.mark.slow
@pytest.mark.parametrize("make", [mlp, conv])
@pytest.mark.parametrize(
    ("capacity", "splits"), [(4, [4, 8]), (5, [5, 10]), (16, []), (2, [])]
)
def test_many_steps_in_one_dispatch_are_bit_equal_to_single_steps(
    getkey, make, capacity, splits
):
    model, key, data = make(getkey()), getkey(), batches(12)
    one, loss = trained(model, key, data, list(range(1, 12)), 1)
    many, loss_ = trained(model, key, data, splits, capacity)
    assert eqx.tree_equal(one.state, many.state)
    assert np.array_equal(loss, loss_)
    assert one.step == many.step == 12


@pytest.mark.slow
def test_single_steps_of_a_loader_round_as_many_do(getkey):
    # In a stack of one batch XLA would find no loop, and fuse otherwise.
    x = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    model, key = mlp(getkey()), getkey()
    states = [
        jaxprob.fit(
            learner,
            model,
            (x, x[:, :1] ** 2),
            key=key,
            num_steps=12,
            steps_per_dispatch=steps,
            progress=False,
        )[0]
        for steps in (1, 2, 8, "auto")
    ]
    assert all(eqx.tree_equal(states[0], state) for state in states[1:])


def num_programs(stepper) -> int:
    """How often the program of many steps has been compiled."""
    return stepper._program._many._cache_size()


def test_any_number_of_steps_compiles_one_program(getkey):
    model, key, data = mlp(getkey()), getkey(), batches(12)
    stepper, _ = trained(model, key, data, [2, 5, 9], 4)
    assert num_programs(stepper) == 1


def test_weakly_typed_leaves_compile_no_second_program(getkey):
    class Scale(eqx.Module):
        factor: jax.Array

        def __call__(self, x):
            return self.factor * x

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        return jnp.sum((model(example) - 1.0) ** 2)

    model = Scale(jnp.asarray(0.1))
    assert model.factor.weak_type
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2))
    stepper = jaxprob.Stepper(
        learner, learner.init(model), key=getkey(), steps_per_dispatch=2
    )
    for _ in range(3):
        stepper([np.ones((4, 2), np.float32)] * 2)
    assert num_programs(stepper) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "programs"), [(8, 1), (20_000, 2)])
def test_a_lone_step_compiles_one_more_where_batches_are_large(getkey, rows, programs):
    model, key, data = mlp(getkey()), getkey(), batches(12, rows)
    stepper, _ = trained(model, key, data, [1, 5, 6], 4)
    assert num_programs(stepper) == programs


@pytest.mark.slow
def test_a_batch_of_another_shape_is_trained_on_in_its_turn(getkey):
    model, key = mlp(getkey()), getkey()
    data = [*batches(3), *batches(1, size=5), *batches(2)]
    one, loss = trained(model, key, data, list(range(1, 6)), 1)
    many, loss_ = trained(model, key, data, [], 4)
    assert eqx.tree_equal(one.state, many.state)
    assert np.array_equal(loss, loss_)


def test_the_given_state_survives_donation(getkey):
    model = mlp(getkey())
    weight = np.array(model.layers[0].weight)
    trained(model, getkey(), batches(4), [], 2)
    assert np.array_equal(model.layers[0].weight, weight)


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_run_that_was_not_stopped(getkey):
    model, key, data = mlp(getkey()), getkey(), batches(12)
    whole, _ = trained(model, key, data, [], 4)
    first, _ = trained(model, key, data[:7], [], 4)
    learner = first.learner
    second = jaxprob.Stepper(
        learner, first.state, key=key, step=first.step, steps_per_dispatch=4
    )
    second(data[7:])
    assert eqx.tree_equal(whole.state, second.state)


@pytest.mark.slow
def test_totals_count_each_example_once(getkey):
    learner = jaxprob.GradientDescent(noisy_loss, optax.sgd(0.0))
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10, 3)).astype(np.float32)
    y = x[:, :1]
    model = eqx.nn.inference_mode(mlp(getkey()))
    loader = jaxprob.ArrayLoader((x, y), batch_size=4)

    @jaxprob.mean_loss
    def loss(model, example, *, key):
        x, y = example
        return jnp.sum((model(x) - y) ** 2)

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    stepper = jaxprob.Stepper(
        learner, learner.init(model), key=getkey(), steps_per_dispatch=3
    )
    stepper(loader)
    expected = np.mean(np.sum((np.asarray(jax.vmap(model)(x)) - y) ** 2, axis=-1))
    assert stepper.totals is not None
    assert np.isclose(stepper.totals.means()["loss"], expected, rtol=1e-5)
    stepper.reset_totals()
    assert stepper.totals.means()["loss"] == 0.0


@pytest.mark.slow
def test_auto_settles_after_a_few_steps_and_changes_no_bit(getkey):
    model, key, data = mlp(getkey()), getkey(), batches(20)
    auto, _ = trained(model, key, data, [1, 2, 3, 4, 5], "auto")
    one, _ = trained(model, key, data, list(range(1, 20)), 1)
    assert not auto.tuning
    assert auto.capacity > 1
    assert eqx.tree_equal(auto.state, one.state)


@pytest.mark.slow
def test_auto_makes_stacks_little_longer_than_what_comes_in_a_row(getkey):
    model, key = mlp(getkey()), getkey()
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    stepper = jaxprob.Stepper(learner, learner.init(model), key=key)
    stepper.bound(6)
    for batch in batches(5):
        stepper([batch])
    assert not stepper.tuning
    assert stepper.capacity == stepper.slots == 8
    stepper.bound(3)
    assert stepper.slots == 4
    stepper(batches(7))
    assert stepper.step == 12


@pytest.mark.slow
def test_auto_compiles_one_program_where_batches_are_small(getkey):
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    stepper = jaxprob.Stepper(learner, learner.init(mlp(getkey())), key=getkey())
    stepper.bound(8)
    stepper(batches(12))
    stepper(batches(1))
    assert (stepper.capacity, stepper.step) == (8, 13)
    assert num_programs(stepper) == 1
    # Of large ones no stack of eight is copied to time a single step.
    large = DispatchSize("auto")
    large.longest = 8
    assert [large.slots(1, n) for n in (2**17, 2**17 + 1)] == [8, 2]


@pytest.mark.parametrize(
    ("seconds", "nbytes", "steps"),
    [
        (1e-6, 1, MAX_STEPS),
        (1e-3, 1, 64),
        (1e-2, 1, 8),
        (0.1, 1, 1),
        (1e-6, MAX_BYTES // 4, 4),
        (1e-6, 2 * MAX_BYTES, 1),
    ],
)
def test_the_number_of_steps_keeps_its_bounds(seconds, nbytes, steps):
    assert choose_capacity(seconds, nbytes) == steps


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, -1])
def test_a_wrong_number_of_steps_is_refused(getkey, steps):
    learner = jaxprob.GradientDescent(noisy_loss, optax.sgd(0.1))
    state = learner.init(mlp(getkey()))
    with pytest.raises(ValueError, match="steps_per_dispatch"):
        jaxprob.Stepper(learner, state, key=getkey(), steps_per_dispatch=steps)


def test_no_batches_are_no_steps(getkey):
    model = mlp(getkey())
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    stepper = jaxprob.Stepper(learner, learner.init(model), key=getkey())
    assert dict(stepper([])) == {}
    assert len(stepper(batches(2))["loss"]) == 2


def test_the_key_of_step_k_is_fold_in_of_k_from_zero(getkey):
    """A loop written by hand, and one dispatch of it, from step 0 and from step 3."""
    learner = jaxprob.GradientDescent(noisy_loss, optax.sgd(1e-2))
    key, data = getkey(), batches(5)
    state = learner.init(mlp(getkey()))
    update = eqx.filter_jit(learner.update)
    losses, states = [], [state]
    for k, batch in enumerate(data):
        state, info = update(state, batch, key=jax.random.fold_in(key, k))
        losses.append(float(info["loss"]))
        states.append(state)
    for step in (0, 3):
        stepper = jaxprob.Stepper(
            learner, states[step], key=key, step=step, steps_per_dispatch=4
        )
        found = stepper(data[step:])["loss"]
        assert np.allclose(found, losses[step:], rtol=1e-5)
        for a, b in zip(
            jax.tree.leaves(eqx.filter(stepper.state.model, eqx.is_array)),
            jax.tree.leaves(eqx.filter(states[-1].model, eqx.is_array)),
            strict=True,
        ):
            assert np.allclose(a, b, rtol=1e-5, atol=1e-7)
