"""Data that lie on the device give the bits of data that are sent there."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import ArrayLoader, Layout
from jaxprob._training.batch import RowStack

from .test_stepper import mlp, noisy_loss


def loader(resident, drop_last=False, read_only=False):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    y = x[:, :1] ** 2
    if read_only:
        x.flags.writeable = y.flags.writeable = False
    return (x, y), ArrayLoader(
        (x, y), batch_size=16, shuffle=True, drop_last=drop_last, resident=resident
    )


def trained(data, steps=4, layout=None):
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    return jaxprob.fit(
        learner,
        mlp(jax.random.key(0)),
        data,
        key=jax.random.key(1),
        num_steps=18,
        steps_per_dispatch=steps,
        layout=layout,
        progress=False,
    )[0]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [None, Layout(data=4)])
@pytest.mark.parametrize("drop_last", [False, True])
def test_resident_data_give_the_bits_of_the_host_path(layout, drop_last):
    _, on_host = loader(False, drop_last)
    _, on_device = loader(True, drop_last)
    assert isinstance(iter(on_device).take(2, 2), RowStack)
    assert not isinstance(iter(on_host).take(2, 2), RowStack)
    expected = trained(on_host, layout=layout)
    assert eqx.tree_equal(expected, trained(on_device, layout=layout))


def test_the_host_sees_the_same_batches_of_resident_data():
    stacks = [iter(loader(where)[1]).take(3, 4) for where in (False, True)]
    assert all(len(stack) == 3 and stack.capacity == 4 for stack in stacks)
    for first, second in zip(*(stack.unstack() for stack in stacks), strict=True):
        assert eqx.tree_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("resident", [False, True])
def test_what_becomes_of_the_callers_arrays_changes_nothing(resident):
    _, untouched = loader(resident)
    (x, y), data = loader(resident)
    iter(data).take(1)
    x[:], y[:] = np.nan, 7.0
    for first, second in zip(untouched, data, strict=True):
        assert eqx.tree_equal(first, second)
    assert eqx.tree_equal(trained(untouched), trained(data))


def test_what_is_read_only_is_not_copied():
    (x, _), data = loader(False, read_only=True)
    assert np.shares_memory(data.data[0], x)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [None, Layout(data=4)])
def test_a_batch_may_be_written_over_once_it_is_handed_over(getkey, layout):
    learner = jaxprob.GradientDescent(noisy_loss, optax.adam(1e-2))
    model, key = mlp(getkey()), getkey()
    x = np.random.default_rng(0).normal(size=(4096, 3)).astype(np.float32)

    def steps(spoil):
        stepper = jaxprob.Stepper(
            learner, learner.init(model), key=key, steps_per_dispatch=1, layout=layout
        )
        for _ in range(10):
            batch = (x.copy(), x[:, :1] ** 2)
            stepper([batch])
            if spoil:
                batch[0][:], batch[1][:] = 7.0, 9.0
        return stepper.fetch()

    assert eqx.tree_equal(steps(False), steps(True))


def test_on_cpu_data_stay_on_the_host_unless_asked():
    assert loader(None)[1].device_table() is None
