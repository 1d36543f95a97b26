"""A block's vmap is one call for all examples, under whatever else is done to it."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import nn
from jaxprob.diffusion.nn._mixer import _block

PATCHES, HIDDEN = 3, 4


@pytest.fixture
def block(getkey):
    block = nn.MixerBlock(PATCHES, HIDDEN, 8, 6, key=getkey())
    # Norms of ones and zeros would hide a wrong transpose.
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype),
        block,
    )


def plain(block, y):
    """The same block on (patches, examples, hidden), with no vmap rule."""
    return _block(
        y,
        *block.norm1,
        *block.patch_mixer.weights,
        *block.norm2,
        *block.hidden_mixer.weights,
    )


def one_by_one(block, y):
    return jax.lax.map(lambda row: plain(block, row[:, None])[:, 0], y)


@pytest.mark.slow
def test_vmap_is_a_loop_over_examples(block, x64, getkey):
    block = jax.tree.map(lambda leaf: leaf.astype(float), block)
    y = jax.random.normal(getkey(), (2, 5, PATCHES, HIDDEN))
    expected = jnp.stack([one_by_one(block, row) for row in y])
    assert jnp.allclose(jax.vmap(jax.vmap(block))(y), expected, rtol=1e-12, atol=1e-12)
    # Wherever the axis of the examples stands.
    last = jax.vmap(block, in_axes=-1, out_axes=1)(jnp.moveaxis(y[0], 0, -1))
    assert jnp.allclose(jnp.moveaxis(last, 1, 0), expected[0], rtol=1e-12)


@pytest.mark.slow
def test_in_float32_the_batch_rounds_alike(block, getkey):
    y = jax.random.normal(getkey(), (64, PATCHES, HIDDEN))
    expected = one_by_one(block, y)
    error = jnp.linalg.norm(jax.jit(jax.vmap(block))(y) - expected)
    assert error < 3e-7 * jnp.linalg.norm(expected)


@pytest.mark.slow
def test_the_batch_is_one_operation_and_transposes_nothing(block, getkey):
    y = jax.random.normal(getkey(), (2, 5, PATCHES, HIDDEN))
    jaxpr = jax.make_jaxpr(jax.vmap(jax.vmap(lambda y: block(block(y)))))(y)
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert names.count("mixer_block") == 2
    # In and out, for each of the two vmaps; none between the blocks but of size one.
    shapes = [e.invars[0].aval.shape for e in jaxpr.eqns if "block" in e.primitive.name]
    assert shapes == [(PATCHES, 10, HIDDEN)] * 2


def loss(block, y):
    return jnp.sum(jnp.sin(block(y)))


@pytest.mark.slow
def test_gradients_of_the_batch_and_of_each_example(block, x64, getkey):
    block = jax.tree.map(lambda leaf: leaf.astype(float), block)
    y = jax.random.normal(getkey(), (5, PATCHES, HIDDEN))

    def expected(block, row):
        return jnp.sum(jnp.sin(plain(block, row[:, None])))

    @jax.jit
    def gradients(block, y):
        both: Any = {"argnums": (0, 1)}
        each = jax.lax.map(lambda row: jax.grad(expected, **both)(block, row), y)
        got = jax.vmap(jax.grad(loss, **both), in_axes=(None, 0))(block, y)
        together = jax.grad(
            lambda block, y: jnp.sum(jax.vmap(lambda row: loss(block, row))(y)), **both
        )(block, y)
        return each, got, together

    each, got, together = gradients(block, y)
    summed = jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), each[0]), each[1]
    for a, b in ((got, each), (together, summed)):
        assert all(
            jnp.allclose(x, y, rtol=1e-10, atol=1e-12)
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        )


@pytest.mark.slow
def test_forward_derivatives_and_second_ones(block, x64, getkey):
    block = jax.tree.map(lambda leaf: leaf.astype(float), block)
    y, v = jax.random.normal(getkey(), (2, 5, PATCHES, HIDDEN))

    def derivative(function):
        return jax.vmap(lambda y, v: jax.linearize(function, y)[1](v))(y, v)

    @jax.jit
    def results(y):
        got = derivative(block)
        expected = derivative(lambda y: plain(block, y[:, None])[:, 0])
        second = jax.vmap(jax.hessian(lambda y: loss(block, y)))(y[:2])
        return got, expected, second

    got, expected, second = results(y)
    assert jnp.allclose(got, expected, rtol=1e-12)
    second = second.reshape(2, PATCHES * HIDDEN, -1)
    assert jnp.linalg.norm(second) > 0.1
    assert jnp.allclose(second, jnp.swapaxes(second, 1, 2), atol=1e-10)


@pytest.mark.slow
def test_an_ensemble_of_blocks(block, getkey):
    keys = jax.random.split(getkey(), 3)
    blocks = eqx.filter_vmap(lambda key: nn.MixerBlock(PATCHES, HIDDEN, 8, 6, key=key))(
        keys
    )
    y = jax.random.normal(getkey(), (5, PATCHES, HIDDEN))
    got = eqx.filter_vmap(lambda block: jax.vmap(block)(y))(blocks)
    for i in range(3):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        assert jnp.allclose(got[i], one_by_one(one, y), atol=1e-5)
    # And each member with rows of its own.
    rows = jnp.stack([y, y + 1.0, y - 1.0])
    got = eqx.filter_vmap(lambda block, y: jax.vmap(block)(y))(blocks, rows)
    assert jnp.allclose(got[2], one_by_one(one, rows[2]), atol=1e-5)
