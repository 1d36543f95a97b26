from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob

from ..unhooked import unhooked


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(np.float32)
    y = x @ np.array([[1.0], [-2.0], [0.5]], np.float32) + np.float32(0.3)
    return x, y


@pytest.fixture
def learner():
    return jaxprob.GradientDescent(squared_error, optax.adam(0.05))


def run(learner, data, getkey, **kwargs):
    model = eqx.nn.Linear(3, 1, key=getkey())
    kwargs = {"num_epochs": 30, "batch_size": 16, "progress": False} | kwargs
    return jaxprob.fit(learner, model, data, key=getkey(), **kwargs)


@pytest.mark.slow
def test_it_solves_least_squares(learner, data, getkey):
    state, history = run(learner, data, getkey, num_epochs=150, validation=data)
    assert jnp.allclose(
        learner.model(state).weight, jnp.array([[1.0, -2.0, 0.5]]), atol=1e-3
    )
    assert jnp.allclose(learner.model(state).bias, 0.3, atol=1e-3)
    assert history[-1]["val_loss"] < 1e-5 < history[0]["val_loss"]
    assert history[-1]["step"] == 150 * 4


@pytest.mark.parametrize("num_steps", [1, 4, 7, 13])
def test_num_steps_is_exact(learner, data, getkey, num_steps):
    state, history = run(
        learner,
        data,
        getkey,
        num_epochs=None,
        num_steps=num_steps,
        steps_per_dispatch=4,
    )
    assert int(state.step) == num_steps == history[-1]["step"]


@pytest.mark.slow
def test_the_same_key_gives_the_same_bits_whatever_the_dispatch(learner, data):
    from tests.conftest import KeyMaker

    first, _ = run(learner, data, KeyMaker(), steps_per_dispatch=1)
    second, _ = run(learner, data, KeyMaker(), steps_per_dispatch=8)
    assert eqx.tree_equal(first, second)


def test_any_iterable_of_batches_will_do(learner, data, getkey):
    x, y = data
    batches = jaxprob.ArrayLoader((x, y), batch_size=10, drop_last=True)

    class Reiterable:
        def __iter__(self):
            return iter(batches)

    _, history = run(learner, Reiterable(), getkey, num_epochs=3)
    assert [entry["step"] for entry in history] == [5, 10, 15]


@pytest.mark.parametrize("num", [2, 3])  # a batch has two parts, too
@pytest.mark.parametrize("as_batch", [tuple, list])
def test_a_list_of_batches_is_no_data_set(learner, data, getkey, num, as_batch):
    x, y = data
    batches = [as_batch((x[i::num][:16], y[i::num][:16])) for i in range(num)]
    _, history = run(learner, batches, getkey, num_epochs=2, validation=batches)
    assert [entry["step"] for entry in history] == [num, 2 * num]
    assert set(history[0]) == {"step", "loss", "val_loss"}


@pytest.mark.slow
def test_batches_of_torch_are_batches(learner, data, getkey):
    torch = pytest.importorskip("torch")
    rows = torch.utils.data.TensorDataset(*map(torch.from_numpy, data))
    loader = torch.utils.data.DataLoader(rows, batch_size=10)
    model = eqx.nn.Linear(3, 1, key=getkey())
    settings = {"key": getkey(), "num_epochs": 2, "progress": False}
    batches = [tuple(a[i : i + 10] for a in data) for i in range(0, 50, 10)]
    found, expected = (
        jaxprob.fit(learner, model, d, validation=d, **settings)
        for d in (loader, batches)
    )
    assert found[1] == expected[1]
    assert eqx.tree_equal(found[0], expected[0])


def test_a_generator_that_is_used_up_is_reported(learner, data, getkey):
    batches = (batch for batch in jaxprob.ArrayLoader(data, batch_size=10))
    with pytest.raises(ValueError, match="epoch 1: is it a generator"):
        run(learner, batches, getkey, num_epochs=2)


@pytest.mark.parametrize("length", [{}, {"num_steps": 3, "num_epochs": 2}])
def test_one_length_is_asked_for(learner, data, getkey, length):
    with pytest.raises(ValueError, match="num_steps or num_epochs"):
        jaxprob.fit(learner, eqx.nn.Identity(), data, key=getkey(), **length)


@pytest.mark.parametrize("length", [{"num_steps": 0}, {"num_epochs": 2.5}])
def test_a_length_is_a_whole_number(learner, data, getkey, length):
    (name,) = length
    told = pytest.raises(ValueError, match=f"{name}={length[name]}: a whole number")
    with unhooked(), told:
        jaxprob.fit(learner, eqx.nn.Identity(), data, key=getkey(), **length)


def test_what_is_no_learner_or_optimizer_is_told_of(learner, data, getkey):
    model: Any = eqx.nn.Linear(3, 1, key=getkey())
    no_optimizers: Any = (1e-2, optax.adam)
    with unhooked():
        with pytest.raises(TypeError, match=r"learner is a Linear: fit\(learner, m"):
            jaxprob.fit(model, learner, data, key=getkey(), num_steps=1)
        for wrong in no_optimizers:
            with pytest.raises(
                TypeError, match=r"optimizer=.* an optax transformation"
            ):
                jaxprob.GradientDescent(squared_error, wrong)


def test_a_diverging_run_stops_with_a_reason(data, getkey):
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(1e3))
    with pytest.raises(FloatingPointError, match="learning rate"):
        run(learner, data, getkey, num_epochs=50)


@pytest.mark.slow
def test_evaluate_counts_each_example_once_and_trains_nothing(learner, data, getkey):
    model = eqx.nn.Linear(3, 1, key=getkey())
    state = learner.init(model)
    x, y = data
    prediction = x @ np.asarray(model.weight).T + np.asarray(model.bias)
    expected = np.mean(np.sum((prediction - y) ** 2, axis=-1))
    for batch_size in (7, 50, 64):
        means = jaxprob.evaluate(
            learner, state, data, key=getkey(), batch_size=batch_size
        )
        assert np.isclose(means["loss"], expected, rtol=1e-5)
    assert eqx.tree_equal(state, learner.init(model))
