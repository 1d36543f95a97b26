"""The joint density of rows that the user counts, such as graphs in one array."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn

RNG = np.random.default_rng(0)
MODEL = eqx.nn.Linear(2, 1, key=jax.random.key(0))
NUM_DATA, NOISE = 6, 0.5


def graphs(sizes, capacity=4, num_nodes=12):
    """A few graphs as nodes with the number of their graph, padded to one shape."""
    owner = np.full(num_nodes, capacity, np.int32)
    owner[: sum(sizes)] = np.repeat(np.arange(len(sizes)), sizes)
    data = {
        "nodes": RNG.normal(size=(num_nodes, 2)).astype(np.float32),
        "owner": owner,
        "target": RNG.normal(size=(capacity, 1)).astype(np.float32),
    }
    return jaxprob.Batch(data, np.arange(capacity) < len(sizes))


BATCHES = [graphs([3, 4]), graphs([2, 1, 5, 2])]


def outputs(model, data, *, key):
    values = jax.vmap(model)(data["nodes"])
    sums = jax.ops.segment_sum(values, data["owner"], len(data["target"]) + 1)
    return sums[:-1], data["target"]


def joint(apply=outputs, num_data=NUM_DATA):
    return bnn.LogJoint(
        bnn.NormalLikelihood(NOISE),
        bnn.IsotropicNormal(),
        num_data,
        apply=bnn.BatchApply(apply),
    )


def design(batch):
    """Sums of the inputs of each graph with their number, and the targets."""
    data, num = batch.data, int(np.sum(batch.mask))
    rows = np.concatenate([data["nodes"], np.ones((12, 1))], 1).astype(np.float64)
    sums = np.stack([rows[data["owner"] == i].sum(0) for i in range(num)])
    return sums, data["target"][:num, 0].astype(np.float64)


def test_it_is_scaled_by_the_rows_that_were_counted():
    assert MODEL.bias is not None
    weights = np.concatenate([np.ravel(MODEL.weight), np.ravel(MODEL.bias)])
    total = 0.0
    for batch in BATCHES:
        x, y = design(batch)
        log_probs = dist.Normal(x @ weights, NOISE).log_prob(y)
        found = joint().log_likelihood(MODEL, batch)
        assert np.isclose(found, NUM_DATA / len(y) * np.sum(log_probs), rtol=1e-5)
        total += float(found) * len(y) / NUM_DATA
    every = [design(batch) for batch in BATCHES]
    x, y = (np.concatenate(part) for part in zip(*every, strict=True))
    exact = np.sum(dist.Normal(x @ weights, NOISE).log_prob(y))
    assert np.isclose(total, exact, rtol=1e-5)


@pytest.mark.slow
def test_the_map_estimate_is_ridge_regression_over_graphs():
    x, y = design(BATCHES[1])
    exact = np.linalg.solve(x.T @ x / NOISE**2 + np.eye(3), x.T @ y / NOISE**2)
    method = bnn.MAP(joint(num_data=4), optax.adam(0.05))
    state, _ = jaxprob.fit(
        method,
        MODEL,
        [BATCHES[1]],
        key=jax.random.key(0),
        num_steps=1500,
        progress=False,
    )
    model = method.model(state)
    found = np.concatenate([np.ravel(model.weight), np.ravel(model.bias)])
    assert np.allclose(found, exact, atol=1e-3)
    with pytest.raises(TypeError, match="single rows are needed here"):
        bnn.predict(
            method.posterior(state),
            bnn.NormalLikelihood(NOISE),
            BATCHES[0].data["nodes"],
            key=jax.random.key(0),
            apply=joint().apply,
        )


def test_rows_without_a_mask_are_rejected():
    with pytest.raises(TypeError, match=r"give jaxprob\.Batch\(data, mask\)"):
        joint()(MODEL, BATCHES[0].data)

    def of_nodes(model, data, *, key):
        return jax.vmap(model)(data["nodes"]), data["target"]

    with pytest.raises(ValueError, match=r"outputs have shape \(12, 1\).* has 4 rows"):
        joint(of_nodes)(MODEL, BATCHES[0])
    with pytest.raises(TypeError, match="single rows"):
        joint().apply(MODEL, jnp.ones(2), key=None)
