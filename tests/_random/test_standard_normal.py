"""Noise: its bits, its law, its keys, and what is drawn or summed together."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob._random.standard_normal import (
    box_muller,
    philox,
    standard_normal,
    threefry,
)
from jaxprob.bnn._weights.joined import SMALL


def test_both_words_are_those_of_jax(x64):
    key = jax.random.key(7)
    counter = jnp.arange(1000, dtype=jnp.uint32)
    words = threefry(jax.random.key_data(key), counter)
    first, second = (word.astype(jnp.uint64) for word in words)
    expected = jax.random.bits(key, (1000,), jnp.uint64)
    assert jnp.array_equal((first << 32) | second, expected)


def test_a_pair_is_exact_to_single_precision(getkey):
    first, second = jax.random.bits(getkey(), (2, 100_000))
    pair = np.asarray(box_muller(first, second), np.complex128)
    uniform = (np.asarray(first >> 1) + 0.5) * 2.0**-31
    radius = np.sqrt(-2.0 * np.log(uniform))
    assert np.allclose(np.abs(pair), radius, rtol=1e-6, atol=2e-5)
    # Its angle, from the quarter of the circle that two bits choose.
    word = np.asarray(second).astype(np.uint64)
    turn = ((word << 2) & 0xFFFFFFFF).astype(np.uint32).view(np.int32) * 2.0**-33
    expected: Any = np.exp(1j * np.pi * turn)
    expected = np.where(word >> 31, expected.imag + 1j * expected.real, expected)
    expected = np.where((word >> 30) & 1, -expected, expected)
    assert np.allclose(pair / np.abs(pair), expected, rtol=0, atol=3e-7)


@pytest.mark.parametrize("words", [(0, 0), (2**32 - 1, 2**32 - 1), (1, 2**31)])
def test_the_ends_of_the_words_give_finite_numbers(words):
    first, second = (jnp.full((1,), word, jnp.uint32) for word in words)
    pair = box_muller(first, second)
    assert jnp.all(jnp.isfinite(pair.real) & jnp.isfinite(pair.imag))
    assert jnp.abs(pair)[0] < 6.7


def test_squares_of_many_draws_have_their_law(getkey):
    # A sum of two squares sees an angle or a radius that is off; four moments do not.
    noise = np.asarray(standard_normal(getkey(), (1_000_000,), jnp.float32), float)
    sums = noise.reshape(2, -1)
    assert scipy.stats.kstest((sums**2).sum(0), "chi2", (2,)).pvalue > 1e-6
    angle = np.arctan2(*sums) / (2 * np.pi) + 0.5
    assert scipy.stats.kstest(angle, "uniform").pvalue > 1e-6
    assert abs(np.mean(noise**4) - 3.0) < 5 * np.sqrt(96.0 / len(noise))


@pytest.mark.parametrize("shape", [(40_001,), (200, 201)])
def test_the_draws_are_standard_normal_and_independent(shape, getkey):
    noise = np.asarray(standard_normal(getkey(), shape, jnp.float32)).ravel()
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-6
    half = len(noise) // 2
    quarter = len(noise) // 4
    for shift in (1, quarter, quarter + 1, half, half + 1):
        correlation = np.mean(noise[:-shift] * noise[shift:])
        assert abs(correlation) < 5 / np.sqrt(len(noise) - shift)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (0, 3)])
def test_the_noise_has_the_shape_and_the_dtype(shape, dtype, kind, x64):
    noise = standard_normal(jax.random.key(1, impl=kind), shape, jnp.dtype(dtype))
    assert noise.shape == shape
    assert noise.dtype == dtype
    assert len(np.unique(noise)) == noise.size


def test_a_second_draw_outside_of_a_program_compiles_nothing(getkey, caplog):
    keys = list(jax.random.split(getkey(), 2))

    def compiled(key):
        caplog.clear()
        with jax.log_compiles():
            standard_normal(key, (7, 3), jnp.float32)
        return [m for m in caplog.messages if m.startswith("Finished XLA compilation")]

    assert compiled(keys[0])
    assert not compiled(keys[1])


def test_many_draws_at_once_are_the_draws_of_their_keys(getkey):
    keys = jax.random.split(getkey(), 3)

    def draw(key):
        return standard_normal(key, (5,), jnp.float32)

    alone = jnp.stack([draw(key) for key in keys])
    assert jnp.array_equal(jax.vmap(draw)(keys), alone)
    assert len(np.unique(np.asarray(alone))) == alone.size


def test_an_accelerator_draws_the_same_without_a_loop(getkey, monkeypatch):
    key = getkey()
    here = standard_normal(key, (7,), jnp.float32)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    compiled: Any = standard_normal
    compiled.clear_cache()
    jaxpr = jax.make_jaxpr(lambda key: standard_normal(key, (7,), jnp.float32))(key)
    assert "scan" not in str(jaxpr)
    assert jnp.array_equal(standard_normal(key, (7,), jnp.float32), here)
    compiled.clear_cache()


def test_a_kind_of_key_that_was_chosen_stays():
    key = jax.random.key(1, impl="rbg")
    assert jax.random.key_impl(philox(key)) == jax.random.key_impl(key)
    default = philox(jax.random.key(1))
    assert jax.random.key_impl(philox(default)) == jax.random.key_impl(default)
    assert jnp.array_equal(
        jax.random.key_data(default), jax.random.key_data(jax.random.key(1))
    )


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["weight", "local", "flipout"])
@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_a_module_is_handed_keys_of_the_kind_that_was_given(estimator, kind):
    seen = []

    class Asking(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x, *, key):
            seen.append(str(jax.random.key_impl(key)))
            return self.layer(x)

    model = Asking(eqx.nn.Linear(2, 1, key=jax.random.key(0)))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=3)
    method = bnn.MeanFieldVI(joint, optax.sgd(0.1), estimator=estimator)
    batch = (jnp.ones((3, 2)), jnp.ones((3, 1)))
    key = jax.random.key(1, impl=kind)
    method.update(method.init(model), batch, key=key)
    assert seen
    assert set(seen) == {kind}


def mixed_tree(getkey):
    """Leaves on both sides of the limit, of two dtypes."""
    shapes = {"a": (3, 2), "big": (SMALL + 1,), "c": (5,), "scalar": ()}
    leaves = {
        name: bnn.Gaussian.of(jax.random.normal(getkey(), shape), 0.3)
        for name, shape in shapes.items()
    }
    single = jax.random.normal(getkey(), (4,), jnp.float32)
    return {**leaves, "other": bnn.Gaussian.of(single, 0.3), "plain": jnp.ones(2)}


@pytest.mark.slow
def test_leaves_drawn_together_come_back_in_their_places(x64, getkey):
    tree = mixed_tree(getkey)
    narrow = {
        name: bnn.Gaussian.of(node.mean, 1e-9) if bnn.is_random(node) else node
        for name, node in tree.items()
    }
    drawn = bnn.sample_leaves(narrow, key=getkey())
    for name, mean in bnn.mean_leaves(tree).items():
        assert drawn[name].dtype == mean.dtype
        assert drawn[name].shape == mean.shape
        assert jnp.allclose(drawn[name], mean, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_divergence_of_all_leaves_is_the_sum_of_each(x64, getkey, temperature):
    tree = mixed_tree(getkey)
    del tree["other"]  # one sum has one dtype

    def prior(path, leaf):
        if path == "c":
            return dist.Normal(jnp.arange(5.0), 0.7)
        return dist.Normal(0.0, 1.0 + len(path))

    together = bnn.kl(tree, prior, temperature=temperature)
    each = sum(
        bnn.kl({name: node}, prior, temperature=temperature)
        for name, node in tree.items()
        if bnn.is_random(node)
    )
    assert jnp.allclose(together, each, rtol=1e-10)
