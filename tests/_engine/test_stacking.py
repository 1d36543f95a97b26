"""Batches stand at the beginning of buffers that are as long as the program wants."""

import warnings

import jax
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob._engine.stacking import stack_into

from ..unhooked import unhooked


@pytest.fixture
def dirty(monkeypatch):
    """Memory as the last user left it."""

    def empty(shape, dtype=float, **kwargs):
        out = np.zeros(shape, dtype, **kwargs)
        if out.dtype == np.float64:
            out[...] = 1e300
        return out

    monkeypatch.setattr(np, "empty", empty)


def test_what_is_beyond_the_batches_converts_to_single_precision(dirty):
    out = stack_into(3, np.ones(2), np.ones(2))
    assert out.dtype == np.float64
    assert np.array_equal(out, [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    assert np.isfinite(jax.numpy.asarray(out)).all()


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jax.numpy.sum((model * x - y) ** 2)


@pytest.mark.slow
def test_training_on_double_precision_rows_warns_of_nothing(dirty):
    x = np.linspace(-1.0, 1.0, 20)
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(0.1))
    with unhooked(), warnings.catch_warnings():
        warnings.simplefilter("error")
        jaxprob.fit(
            learner,
            jax.numpy.ones(()),
            (x, 2.0 * x),
            key=jax.random.key(0),
            num_steps=3,
            batch_size=10,
            progress=False,
        )
