from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxprob
from jaxprob._training.batch import num_rows, weight


def test_a_padded_batch_refuses_to_be_unpacked_as_if_it_were_plain():
    batch: Any = jaxprob.Batch((np.zeros(4), np.zeros(4)), np.ones(4, bool))
    with pytest.raises(TypeError, match=r"jaxprob\.unpack"):
        _x, _y = batch


def test_plain_data_counts_in_full():
    (x,), mask = jaxprob.unpack((np.arange(3.0),))
    assert x.shape == (3,)
    assert bool(jnp.all(mask))
    assert float(weight((np.arange(3.0),))) == 3.0


def test_the_mean_ignores_padded_rows_even_if_they_are_nan():
    mask = np.array([True, True, False])
    values = jnp.array([1.0, 3.0, jnp.nan])
    assert float(jaxprob.masked_mean(values, mask)) == 2.0
    gradient = jax.grad(lambda v: jaxprob.masked_mean(v, mask))(values)
    assert jnp.array_equal(gradient, jnp.array([0.5, 0.5, 0.0]))


def test_the_mean_of_no_rows_is_zero():
    assert float(jaxprob.masked_mean(jnp.ones(2), np.zeros(2, bool))) == 0.0


@jaxprob.mean_loss
def squared(model, example, *, key):
    x, y = example
    noise = jax.random.normal(key)
    return (model * x - y) ** 2, {"noise": noise}


@pytest.mark.slow
def test_padding_changes_neither_loss_nor_gradient_nor_noise(getkey):
    key = getkey()
    x, y = np.arange(1.0, 6.0, dtype=np.float32), np.ones(5, np.float32)
    padded = jaxprob.Batch(
        (np.r_[x, np.full(3, 1e6, np.float32)], np.r_[y, np.zeros(3, np.float32)]),
        np.arange(8) < 5,
    )
    grad = jax.value_and_grad(squared, has_aux=True)
    (loss, metrics), slope = grad(jnp.asarray(2.0), (x, y), key=key)
    (loss_, metrics_), slope_ = grad(jnp.asarray(2.0), padded, key=key)
    assert jnp.allclose(loss, np.mean((2 * x - y) ** 2))
    assert jnp.allclose(loss, loss_, rtol=1e-6)
    assert jnp.allclose(slope, slope_, rtol=1e-6)
    assert jnp.allclose(metrics["noise"], metrics_["noise"], rtol=1e-6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.zeros(3), np.zeros(4)), r"\[0\]: 3, \[1\]: 4"),
        ((np.zeros(3), np.zeros(())), r"\[1\] has no leading axis"),
        ((), "holds no array"),
    ],
)
def test_data_without_one_common_axis_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        num_rows(data)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int32])
def test_the_mean_of_hits_is_their_share(dtype):
    """300 rows: a count that eight bits do not hold, and `True` still less."""
    hits = np.arange(300) % 3 == 0
    found = jaxprob.masked_mean(jnp.asarray(hits.astype(dtype)), np.arange(300) < 297)
    assert np.isclose(found, 1 / 3)
