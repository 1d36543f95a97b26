"""Random leaves: their algebra against numpyro, their noise, their gradients."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn

from ...unhooked import unhooked


def test_the_scale_of_a_gaussian_is_the_one_asked_for(x64):
    scales = jnp.array([1e-6, 1e-3, 0.1, 1.0, 30.0, 800.0])
    leaf = bnn.Gaussian.of(jnp.zeros(6), scales)
    assert jnp.allclose(leaf.scale, scales, rtol=1e-10, atol=0.0)


@pytest.mark.slow
def test_a_scale_that_underflows_still_has_a_finite_entropy_and_kl():
    leaf = bnn.Gaussian(jnp.zeros(2), jnp.array([-200.0, 0.0]))
    value, grads = eqx.filter_value_and_grad(lambda q: q.kl(dist.Normal(0.0, 1.0)))(
        leaf
    )
    assert jnp.isfinite(value)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


def test_integers_and_other_shapes_are_refused():
    with unhooked():
        with pytest.raises(TypeError, match="rho is int32, which has no gradient"):
            bnn.Gaussian(jnp.zeros(3), jnp.full(3, -3))
        with pytest.raises(ValueError, match="mean has shape"):
            bnn.Gaussian(jnp.zeros(3), jnp.zeros(2))


@pytest.mark.slow
def test_log_prob_and_entropy_are_summed_over_entries(x64, getkey):
    leaf = bnn.Gaussian.of(jax.random.normal(getkey(), (2, 3)), 0.3)
    value = jax.random.normal(getkey(), (2, 3))
    by_hand = -0.5 * ((value - leaf.mean) / 0.3) ** 2 - jnp.log(
        0.3 * jnp.sqrt(2 * jnp.pi)
    )
    assert jnp.allclose(leaf.log_prob(value), jnp.sum(by_hand), rtol=0.0, atol=1e-10)
    entropy = 6 * (0.5 + 0.5 * jnp.log(2 * jnp.pi) + jnp.log(0.3))
    assert jnp.allclose(leaf.entropy(), entropy, rtol=0.0, atol=1e-10)


class Pair(eqx.Module):
    a: jax.Array
    b: jax.Array


@pytest.mark.slow
def test_no_two_leaves_share_noise(getkey):
    shape = (64, 100)
    leaf = bnn.Gaussian.of(jnp.zeros(shape), 1.0)
    names = ("a", "b", "c")
    drawn = bnn.sample_leaves(dict.fromkeys(names, leaf), key=getkey())
    noise = np.stack([drawn[name].ravel() for name in names])
    correlation = np.corrcoef(noise)
    limit = 5 / np.sqrt(noise.shape[1])
    assert np.abs(correlation[~np.eye(3, dtype=bool)]).max() < limit
    # Small ones share a draw, of which each has a part of its own.
    few = bnn.Gaussian.of(jnp.zeros(4000), 1.0)
    drawn = bnn.sample_leaves(dict.fromkeys(names, few), key=getkey())
    correlation = np.corrcoef(np.stack([drawn[name] for name in names]))
    assert np.abs(correlation[~np.eye(3, dtype=bool)]).max() < 5 / np.sqrt(4000)
    # Shifted copies as well: a key that is used twice gives two arrays of different
    # size the same first entries.
    small = bnn.sample_leaves(
        {"bias": bnn.Gaussian.of(jnp.zeros(64), 1.0), "weight": leaf}, key=getkey()
    )
    first = small["weight"].ravel()[:64]
    assert abs(np.corrcoef(small["bias"], first)[0, 1]) < 5 / np.sqrt(64)


def test_sampling_gives_a_model_of_the_same_class_and_leaves_the_rest(getkey):
    leaf: Any = bnn.Gaussian.of(jnp.ones(3), 0.5)
    tree = Pair(a=leaf, b=jnp.arange(3.0))
    model = bnn.sample_leaves(tree, key=getkey())
    assert isinstance(model, Pair)
    assert model.a.shape == (3,)
    assert not jnp.array_equal(model.a, leaf.mean)
    assert jnp.array_equal(model.b, tree.b)
    assert jnp.array_equal(bnn.mean_leaves(tree).a, leaf.mean)
    assert list(bnn.random_leaves(tree)) == ["a"]


@pytest.mark.slow
def test_the_draws_have_the_moments(getkey):
    leaf = bnn.Gaussian.of(jnp.array([1.0, -2.0]), jnp.array([0.1, 2.0]))
    draws = jax.vmap(lambda k: leaf.sample(key=k))(jax.random.split(getkey(), 20_000))
    error = leaf.scale / np.sqrt(20_000)
    assert jnp.all(jnp.abs(draws.mean(0) - leaf.mean) < 5 * error)
    ratio = draws.var(0) / leaf.scale**2
    assert jnp.all(jnp.abs(ratio - 1) < 5 * np.sqrt(2 / 20_000))
