"""Batches whose last rows are padding, where the rows of a batch see each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn


class Normed(eqx.Module):
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(2, "batch", mode="batch", momentum=0.9)
        self.head = eqx.nn.Linear(2, 1, key=key)

    def __call__(self, x, state):
        x, state = self.norm(x, state)
        return self.head(x), state


def make(rows):
    rng = np.random.default_rng(0)
    x = (2 * rng.normal(size=(rows, 2)) + 5).astype(np.float32)
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.1), bnn.IsotropicNormal(3.0), num_data=rows
    )
    model = bnn.Stateful(*eqx.nn.make_with_state(Normed)(jax.random.key(0)))
    return joint, model, (x, x[:, :1] - 5)


def running(model):
    return model.state.get(model.net.norm.batch_state_index)


@eqx.filter_jit
def after(joint, model, batch):
    """Statistics and gradient of one batch."""
    params, rest = eqx.partition(model, jaxprob.tree.select(model, True))

    def value(params):
        key = jax.random.key(0)
        model = eqx.combine(params, rest)
        return joint.with_statistics(model, batch, key=key)

    grad, held = jax.grad(value, has_aux=True)(params)
    moved = eqx.combine(held, model)
    return running(moved), jax.tree.leaves(grad)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2])
def test_padding_of_any_content_leaves_the_statistics_of_the_rows(count):
    """Eight places for rows whose number divides eight: the repetition is exact."""
    joint, model, (x, y) = make(count)
    padded = tuple(
        np.concatenate([a, np.full((8 - count, *a.shape[1:]), np.nan, a.dtype)])
        for a in (x, y)
    )
    mask = np.arange(8) < count
    expected = after(joint, model, (x, y))
    found = after(joint, model, jaxprob.Batch(padded, mask))
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-4)


@pytest.mark.slow
def test_the_rows_that_fill_a_batch_count_in_its_statistics_alone():
    joint, model, (x, y) = make(6)
    joint = eqx.tree_at(lambda j: j.likelihood, joint, bnn.NormalLikelihood(1.0))
    mask = np.arange(6) < 2
    batch = jaxprob.Batch((x, y), mask, filled=True)
    (mean, var), grad = after(joint, model, batch)
    assert np.allclose(mean, 0.1 * x.mean(0), rtol=1e-5)
    assert np.allclose(var, 0.9 + 0.1 * x.var(0), rtol=1e-4)

    def loss(head):
        normed = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        out = jax.vmap(head)(jnp.asarray(normed))
        return -0.5 * 6 / 2 * jnp.sum((out - y)[:2] ** 2)

    expected = jax.tree.leaves(eqx.filter_grad(loss)(model.net.head))
    for a, b in zip(expected, grad[-2:], strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "rows"), [("ensemble", 33), ("swag", 34)])
def test_a_ragged_last_batch_leaves_the_slope_what_it_is(rows, method):
    joint, model, (x, y) = make(rows)
    schedule = optax.cosine_decay_schedule(5e-2, 400)
    inference = bnn.MAP(joint, optax.adam(schedule))
    if method == "ensemble":
        # Two weights have two orders: members by shuffling would often be equal.
        inference = bnn.DeepEnsemble(
            inference,
            2,
            make=lambda key: eqx.tree_at(
                lambda m: m.net.head.weight, model, jax.random.normal(key, (1, 2))
            ),
        )
    if method == "swag":
        inference = bnn.SWAG(
            bnn.MAP(joint, optax.adam(schedule)), num_warmup=380, thin=2, rank=0
        )
    key = jax.random.key(0)
    state, _ = jaxprob.fit(
        inference, model, (x, y), key=key, num_steps=400, progress=False
    )
    batches = jaxprob.ArrayLoader((x, y), batch_size=32)
    # Equinox's own layer raises a float to the power of an integer in inference mode.
    with jax.numpy_dtype_promotion("standard"):
        posterior = inference.posterior(state, batches, key=key)
        mean = bnn.predict(posterior, joint.likelihood, x, key=key).mean
    slope = np.polyfit(y[:, 0], np.asarray(mean)[:, 0], 1)[0]
    # The last running statistics are those of a few batches of 32 rows.
    assert slope == pytest.approx(1.0, abs=0.02)
