"""Batches whose rows the user counts: means over rows, not over batches or nodes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._training.data_check import DataCheck

RNG = np.random.default_rng(0)
MODEL = eqx.nn.Linear(2, 1, key=jax.random.key(0))
RUN = {"key": jax.random.key(1), "progress": False}


def graphs(sizes, capacity=4, num_nodes=12):
    """A few graphs as nodes with the number of their graph, padded to one shape."""
    nodes = RNG.normal(size=(num_nodes, 2)).astype(np.float32)
    owner = np.full(num_nodes, capacity, np.int32)
    owner[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    target = RNG.normal(size=capacity).astype(np.float32)
    data = {"nodes": nodes, "owner": owner, "target": target}
    return jaxprob.Batch(data, np.arange(capacity) < len(sizes))


def graph_loss(model, batch, *, key):
    data, mask = jaxprob.unpack(batch)
    values = jax.vmap(model)(data["nodes"])[:, 0]
    sums = jax.ops.segment_sum(values, data["owner"], len(mask) + 1)[:-1]
    return jaxprob.masked_mean((sums - data["target"]) ** 2, mask), {}


def graph_errors(batch):
    data, num = batch.data, int(np.sum(batch.mask))
    w, b = np.asarray(MODEL.weight)[0], np.asarray(MODEL.bias)[0]
    values = data["nodes"] @ w + b
    sums = [values[data["owner"] == i].sum() for i in range(num)]
    return (np.asarray(sums) - data["target"][:num]) ** 2


def sequences(num):
    """Time first: 7 times, 5 sequences of which some count."""
    x = RNG.normal(size=(7, 5, 2)).astype(np.float32)
    return jaxprob.Batch(x, np.arange(5) < num)


def sequence_loss(model, batch, *, key):
    x, mask = jaxprob.unpack(batch)
    means = jnp.mean(jax.vmap(jax.vmap(model))(x), (0, 2))
    return jaxprob.masked_mean(means**2, mask), {}


def sequence_errors(batch):
    w, b = np.asarray(MODEL.weight)[0], np.asarray(MODEL.bias)[0]
    return ((batch.data @ w + b).mean(0) ** 2)[np.asarray(batch.mask)]


def partly_labelled(labelled, unlabelled):
    """Rows with labels, which count, and others in the same batch."""
    x, more = (RNG.normal(size=(n, 2)).astype(np.float32) for n in (4, unlabelled))
    return jaxprob.Batch((x, x[:, :1], more), np.arange(4) < labelled)


def partly_loss(model, batch, *, key):
    (x, y, more), mask = jaxprob.unpack(batch)
    error = (jax.vmap(model)(x) - y)[:, 0] ** 2
    return jaxprob.masked_mean(error, mask) + 0.0 * jnp.sum(jax.vmap(model)(more)), {}


def partly_errors(batch):
    x, y, _ = batch.data
    w, b = np.asarray(MODEL.weight), np.asarray(MODEL.bias)
    return ((x @ w.T + b - y)[:, 0] ** 2)[np.asarray(batch.mask)]


KINDS = {
    "graphs": (graph_loss, graph_errors, [graphs([3, 4]), graphs([2, 1, 5, 2])]),
    "time first": (sequence_loss, sequence_errors, [sequences(5), sequences(2)]),
    "labelled": (
        partly_loss,
        partly_errors,
        [partly_labelled(4, 6), partly_labelled(1, 6)],
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_means_are_over_the_rows_that_count(kind):
    loss, errors, batches = KINDS[kind]
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.0))
    _, history = jaxprob.fit(
        learner, MODEL, batches, **RUN, num_epochs=1, validation=batches
    )
    rows = np.concatenate([errors(batch) for batch in batches])
    assert np.isclose(history[0]["loss"], rows.mean(), rtol=1e-5)
    assert np.isclose(history[0]["val_loss"], rows.mean(), rtol=1e-5)
    of_batches = np.mean([errors(batch).mean() for batch in batches])
    assert not np.isclose(rows.mean(), of_batches, rtol=1e-3)


@pytest.mark.parametrize("kind", ["graphs", "time first"])
def test_num_data_is_compared_with_the_rows_that_were_counted(kind):
    batches = KINDS[kind][2]
    counted = sum(int(np.sum(batch.mask)) for batch in batches)

    def check(num_data):
        joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data)
        method = bnn.MAP(joint, optax.sgd(0.1))
        for _ in DataCheck(method, MODEL, training=True).over(batches):
            pass

    check(counted)
    with pytest.warns(UserWarning, match=f"{counted}"):
        check(100)
