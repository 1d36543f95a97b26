"""Noise by Philox: its law, its keys, and what is drawn or summed together."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.stats

from jaxprob import bnn
from jaxprob.bnn._standard_normal import philox, standard_normal
from jaxprob.bnn._together import SMALL


@pytest.mark.parametrize("shape", [(40_001,), (200, 201)])
def test_the_draws_are_standard_normal_and_independent(shape, getkey):
    noise = np.asarray(standard_normal(getkey(), shape, jnp.float32)).ravel()
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-4
    half = len(noise) // 2
    for shift in (1, half, half + 1):
        correlation = np.mean(noise[:-shift] * noise[shift:])
        assert abs(correlation) < 4 / np.sqrt(len(noise) - shift)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 5), (0, 3)])
def test_the_noise_has_the_shape_and_the_dtype(shape, x64, getkey):
    noise = standard_normal(getkey(), shape, jnp.float64)
    assert noise.shape == shape
    assert noise.dtype == jnp.float64


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
    standard_normal.clear_cache()
    jaxpr = jax.make_jaxpr(lambda key: standard_normal(key, (7,), jnp.float32))(key)
    assert "scan" not in str(jaxpr)
    assert jnp.array_equal(standard_normal(key, (7,), jnp.float32), here)
    standard_normal.clear_cache()


def test_a_kind_of_key_that_was_chosen_stays():
    key = jax.random.key(1, impl="rbg")
    assert jax.random.key_impl(philox(key)) == jax.random.key_impl(key)
    default = philox(jax.random.key(1))
    assert jax.random.key_impl(philox(default)) == jax.random.key_impl(default)
    assert jnp.array_equal(
        jax.random.key_data(default), jax.random.key_data(jax.random.key(1))
    )


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
