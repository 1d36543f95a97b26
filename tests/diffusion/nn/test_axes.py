"""Networks over one, two and three axes: sizes, masks, dropout, self-conditioning."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import nn
from jaxprob.diffusion.nn._attention import attend
from jaxprob.diffusion.nn._images import as_image, into_patches

from .test_networks import key_of, shuffled

C = jnp.asarray(0.3)


def lifted(net, larger):
    """The weights of a network in one of one more axis, in the middle of kernels."""

    def one(leaf, other):
        if leaf.shape == other.shape:
            return leaf
        if leaf.size == other.size:  # a bias
            return leaf.reshape(other.shape)
        middle = other.shape[-1] // 2
        return jnp.zeros_like(other).at[..., middle].set(leaf)

    params, _ = eqx.partition(net, eqx.is_inexact_array)
    others, rest = eqx.partition(larger, eqx.is_inexact_array)
    leaves = map(one, jax.tree.leaves(params), jax.tree.leaves(others))
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(others), leaves), rest)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 4)])
def test_a_network_is_that_of_one_more_axis_of_size_one(shape):
    """A kernel of three meets zeros beside an axis of size 1."""
    settings = {"widths": (4,), "attention_at": shape[1:2], "num_heads": 2}
    net = shuffled(nn.UNet(shape, **settings, key=key_of(0)), key_of(1))
    larger = lifted(net, nn.UNet((*shape, 1), **settings, key=key_of(0)))
    x = jax.random.normal(key_of(2), shape)
    out, other = eqx.filter_jit(lambda: (net(x, C), larger(x[..., None], C)[..., 0]))()
    assert jnp.std(out) > 0.1
    np.testing.assert_allclose(out, other, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "patch"), [((2, 6), (3,)), ((2, 4, 6), (2, 3)), ((1, 2, 4, 6), (2, 1, 3))]
)
def test_patches_are_blocks_of_the_example(shape, patch):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    size = int(shape[0] * np.prod(patch))
    same = eqx.nn.Linear(size, size, use_bias=False, key=key_of(0))
    same = eqx.tree_at(lambda layer: layer.weight, same, jnp.eye(size))
    rows = into_patches(same, jnp.asarray(x), patch)
    assert jnp.array_equal(as_image(rows, shape[1:], patch), x)
    # The second patch is the next along the last axis.
    block = x[(slice(None), *(slice(0, p) for p in patch[:-1]))]
    block = block[..., patch[-1] : 2 * patch[-1]]
    assert jnp.array_equal(rows[1], block.ravel())


PADDED = {
    "unet": lambda shape: nn.UNet(shape, widths=(4, 4), num_heads=2, key=key_of(0)),
    "dit": lambda shape: nn.DiT(shape, 2, width=8, depth=1, num_heads=2, key=key_of(0)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PADDED)
def test_odd_sizes_are_padded_by_their_edges_and_cropped(name):
    odd, even = (
        shuffled(PADDED[name](shape), key_of(1)) for shape in ((1, 3, 5), (1, 4, 6))
    )
    x = jax.random.normal(key_of(2), (1, 3, 5))
    larger = jnp.pad(x, ((0, 0), (0, 1), (0, 1)), mode="edge")
    out, expected = eqx.filter_jit(lambda: (odd(x, C), even(larger, C)[:, :3, :5]))()
    assert out.shape == x.shape
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pairs", [False, True])
def test_a_masked_row_is_left_out(pairs):
    q, k, v = jax.random.normal(key_of(0), (3, 5, 2, 3))
    mask = jnp.array([True, False, True, True, False])
    given = jnp.broadcast_to(mask, (5, 5)) if pairs else mask
    np.testing.assert_allclose(
        attend(q, k, v, given), attend(q, k[mask], v[mask]), rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"mask has shape \(4,\)"):
        attend(q, k, v, mask[:4])


@pytest.mark.slow
def test_masked_patches_do_not_reach_the_others():
    net = nn.DiT((1, 8), 2, width=8, depth=2, num_heads=2, key=key_of(0))
    net = shuffled(net, key_of(1))
    x = jax.random.normal(key_of(2), (1, 8))
    mask = jnp.array([True, True, True, False])
    run = eqx.filter_jit(lambda x, mask: net(x, C, mask=mask))
    out, other = run(x, mask), run(x.at[0, 6:].set(9.0), mask)
    assert jnp.array_equal(out[:, :6], other[:, :6])
    assert not jnp.allclose(run(x, None)[:, :6], out[:, :6])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "dit"])
def test_dropout_is_for_training(name):
    def make(rate):
        if name == "unet":
            return nn.UNetBlock(2, 2, 4, num_axes=1, dropout=rate, key=key_of(0))
        return nn.DiTBlock(6, 2, 2, dropout=rate, key=key_of(0))

    net, quiet = (shuffled(make(rate), key_of(1)) for rate in (0.5, 0.0))
    x, e = jax.random.normal(key_of(2), (2, 6)), jnp.ones(4 if name == "unet" else 6)
    run = eqx.filter_jit(lambda net, key: net(x, e, key=key))
    one, two = (run(net, jax.random.key(i)) for i in range(2))
    assert not jnp.allclose(one, two)
    assert jnp.array_equal(run(eqx.nn.inference_mode(net), None), run(quiet, None))
    with pytest.raises(RuntimeError, match="key"):
        run(net, None)


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_networks_hand_their_dropout_a_key(name):
    settings = {"num_heads": 2, "dropout": 0.5, "key": key_of(0)}
    sizes = {"widths": (4,)} if name == "unet" else {"width": 8, "depth": 1}
    make = nn.UNet if name == "unet" else nn.DiT
    net = eqx.filter_eval_shape(lambda: make((1, 8), **sizes, **settings))
    x = jnp.zeros((1, 8))
    eqx.filter_eval_shape(net, x, C, key=jax.random.key(0))
    with pytest.raises(RuntimeError, match="key"):
        eqx.filter_eval_shape(net, x, C)


class Linear(eqx.Module):
    """A network of two channels in and one out, a x + b estimate."""

    a: jax.Array
    b: jax.Array

    def __call__(self, x, c, cond=None, *, key=None):
        return self.a * x[:1] + self.b * x[1:]


def test_a_network_is_given_its_own_estimate():
    net = nn.SelfConditioned(Linear(jnp.asarray(2.0), jnp.asarray(3.0)))
    x = jnp.ones((1, 4))
    # a x + b (a x), and the estimate a x has no gradient.
    assert jnp.array_equal(net(x, C), 8.0 * x)
    gradient = eqx.filter_grad(lambda net: net(x, C).mean())(net).net
    assert gradient.a == 1.0
    assert gradient.b == 2.0
    # In training half of the examples have none.
    keys = jax.random.split(jax.random.key(0), 400)
    out = jax.vmap(lambda key: net(x, C, key=key)[0, 0])(keys)
    assert set(np.unique(out)) == {2.0, 8.0}
    assert 160 < np.sum(np.asarray(out) == 8.0) < 240
    quiet = eqx.nn.inference_mode(net)
    assert quiet(x, C, key=keys[0])[0, 0] == quiet(x, C, key=keys[1])[0, 0] == 8.0
    with pytest.raises(ValueError, match="build it for 2 channels, with out_ch"):
        nn.SelfConditioned(lambda x, c, cond, *, key: x)(x, C)
