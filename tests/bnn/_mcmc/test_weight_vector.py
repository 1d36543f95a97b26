"""A model as a vector, and back."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from jaxprob.bnn._mcmc.weight_vector import WeightVector


def test_a_vector_is_the_random_leaves_and_nothing_else():
    model = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    leaves = WeightVector.of(model, "layers.1")
    last = model.layers[1]
    assert last.bias is not None
    assert jnp.array_equal(
        leaves.vector, jnp.concatenate([last.weight.ravel(), last.bias])
    )
    moved = leaves.model(leaves.unravel(leaves.vector + 1.0))
    assert jnp.array_equal(moved.layers[1].weight, last.weight + 1.0)
    assert jnp.array_equal(moved.layers[0].weight, model.layers[0].weight)


def test_an_entry_has_the_path_of_its_leaf():
    model = eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0))
    leaves = WeightVector.of(model, None)
    paths = [leaves.path(index) for index in range(13)]
    sizes = [6, 3, 3, 1]
    names = [f"layers.{i}.{part}" for i in (0, 1) for part in ("weight", "bias")]
    expected = [n for n, s in zip(names, sizes, strict=True) for _ in range(s)]
    assert paths == expected
    with pytest.raises(IndexError, match="index=13: the random leaves hold 13"):
        leaves.path(13)
