"""Layers that draw their own weights: moments, estimators, and use in other code."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn, tree

from ...unhooked import unhooked

LAYERS = {
    "linear": (lambda k, **kw: bnn.BayesianLinear(3, 2, key=k, **kw), (3,)),
    "scalar": (lambda k, **kw: bnn.BayesianLinear("scalar", "scalar", key=k, **kw), ()),
    "conv1d": (lambda k, **kw: bnn.BayesianConv1d(2, 3, 3, key=k, **kw), (2, 5)),
    "conv2d": (
        lambda k, **kw: bnn.BayesianConv2d(1, 2, 3, padding=1, stride=2, key=k, **kw),
        (1, 4, 4),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_draws_with_a_key_and_is_plain_once_drawn(name, getkey):
    make, shape = LAYERS[name]
    layer = make(getkey(), scale=0.5)
    x = jax.random.normal(getkey(), shape)
    key = getkey()
    first, again, other = layer(x, key=key), layer(x, key=key), layer(x, key=getkey())
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    with pytest.raises(ValueError, match=rf"{type(layer).__name__} draws its weights"):
        layer(x)
    drawn = bnn.sample_leaves(layer, key=getkey())
    assert isinstance(drawn, type(layer))
    assert np.array_equal(drawn(x), drawn.layer(x))
    assert np.array_equal(bnn.mean_leaves(layer)(x), bnn.mean_leaves(layer.layer)(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_kl_covers_weight_and_bias(name, getkey):
    layer = LAYERS[name][0](getkey())
    prior = dist.Normal(0.0, 0.7)
    expected = layer.weight.kl(prior) + layer.bias.kl(prior)
    assert np.allclose(bnn.kl(layer, prior), expected, rtol=1e-6)
    assert layer.weight.rho.dtype == jnp.float32
    without = LAYERS[name][0](getkey(), use_bias=False)
    assert np.allclose(bnn.kl(without, prior), without.weight.kl(prior))


@pytest.mark.slow
def test_of_keeps_the_weights_as_means(getkey):
    linear = eqx.nn.Linear(3, 2, key=getkey())
    layer = bnn.BayesianLinear.of(linear, scale=0.3, estimator="local")
    assert isinstance(layer.weight, bnn.Gaussian)
    assert np.array_equal(layer.weight.mean, linear.weight)
    assert layer.estimator == "local"
    conv = eqx.nn.Conv2d(1, 2, 3, padding=1, key=getkey())
    mean = bnn.mean_leaves(bnn.BayesianConv2d.of(conv))
    x = jax.random.normal(getkey(), (1, 4, 4))
    assert np.array_equal(mean(x), conv(x))


@pytest.mark.slow
def test_all_layers_of_a_model_can_be_swapped(getkey):
    model = eqx.nn.Sequential(
        [
            eqx.nn.Linear(3, 8, key=getkey()),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Linear(8, 1, key=getkey()),
        ]
    )
    model = tree.swap(model, eqx.nn.Linear, bnn.BayesianLinear.of)
    x = jnp.ones(3)
    assert not np.allclose(model(x, key=getkey()), model(x, key=getkey()))
    assert len(bnn.random_leaves(model)) == 4


def outputs(layer, x, num, key):
    """`num` draws of the outputs of all rows of x, each draw under one key."""

    def one(key):
        if getattr(layer, "estimator", "weight") == "local":
            return jax.vmap(lambda x, k: layer(x, key=k))(
                x, jax.random.split(key, len(x))
            )
        return jax.vmap(lambda x: layer(x, key=key))(x)

    return jax.jit(jax.vmap(one))(jax.random.split(key, num))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["weight", "local"])
def test_preactivations_have_the_moments_of_the_estimator(estimator, getkey):
    """Mean x'mu, variance sum x^2 sigma^2; across rows covariance or none."""
    layer = bnn.BayesianLinear(3, 2, key=getkey(), scale=0.8, estimator=estimator)
    x = jax.random.normal(getkey(), (2, 3))
    num = 40_000
    out = np.asarray(outputs(layer, x, num, getkey()))
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, bnn.Gaussian)
    assert isinstance(bias, bnn.Gaussian)
    mean = np.asarray(x @ weight.mean.T) + np.asarray(bias.mean)
    variance = np.asarray(x**2 @ (weight.scale**2).T) + np.asarray(bias.scale**2)
    assert np.all(np.abs(out.mean(0) - mean) < 5 * np.sqrt(variance / num))
    assert np.all(np.abs(out.var(0) / variance - 1) < 5 * np.sqrt(2 / num))
    shared = (x[0] * x[1]) @ (weight.scale**2).T + bias.scale**2
    expected = shared if estimator == "weight" else np.zeros(2)
    centred = out - out.mean(0)
    products = centred[:, 0] * centred[:, 1]
    assert np.all(
        np.abs(products.mean(0) - expected) < 5 * products.std(0) / np.sqrt(num)
    )
    # Two outputs of one row never share a weight.
    products = centred[:, 0, 0] * centred[:, 0, 1]
    assert abs(products.mean()) < 5 * products.std() / np.sqrt(num)


@pytest.mark.slow
def test_local_gradients_are_unbiased_and_less_noisy(getkey):
    layer = bnn.BayesianLinear(3, "scalar", key=getkey(), scale=0.8)
    local = bnn.BayesianLinear(3, "scalar", key=getkey(), estimator="local")
    local = eqx.tree_at(lambda b: b.layer, local, layer.layer)
    x = jax.random.normal(getkey(), (16, 3))
    y = jnp.sin(x[:, 0])

    def loss(layer, key):
        def one(x, y, k):
            return (layer(x, key=k) - y) ** 2

        keys = jax.random.split(key, 16)
        if layer.estimator == "weight":
            keys = jnp.stack([key] * 16)
        return jnp.mean(jax.vmap(one)(x, y, keys))

    num = 10_000
    gradient = jax.jit(jax.vmap(jax.grad(loss), (None, 0)), static_argnums=())
    keys = jax.random.split(getkey(), num)
    both = [jax.tree.leaves(gradient(m, keys)) for m in (layer, local)]
    total = np.zeros(2)
    for a, b in zip(*both, strict=True):
        error = np.sqrt((a.var(0) + b.var(0)) / num)
        assert np.all(np.abs(a.mean(0) - b.mean(0)) < 5 * error)
        total += [a.var(0).sum(), b.var(0).sum()]
    assert total[1] < 0.5 * total[0]


@pytest.mark.slow
def test_local_has_a_gradient_at_zero_input(getkey):
    layer = bnn.BayesianLinear(3, 2, False, key=getkey(), estimator="local")
    key = getkey()
    grads = jax.grad(lambda m: jnp.sum(m(jnp.zeros(3), key=key)))(layer)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_an_unknown_estimator_is_refused(getkey):
    wrong: Any = "exact"
    with unhooked(), pytest.raises(ValueError, match="estimator='exact'"):
        bnn.BayesianLinear(1, 1, key=getkey(), estimator=wrong)


@pytest.mark.slow
def test_layers_of_a_model_under_inference_need_no_key(getkey):
    """Under weight sampling the whole model is drawn, and layers see plain arrays."""

    class Net(eqx.Module):
        a: bnn.BayesianLinear
        b: bnn.BayesianLinear

        def __call__(self, x):
            return self.b(jnp.tanh(self.a(x)))

    net = Net(
        bnn.BayesianLinear(2, 4, key=getkey()),
        bnn.BayesianLinear(4, "scalar", key=getkey()),
    )
    posterior = bnn.bayesianize(net, True)
    predictive = bnn.predict(
        posterior, bnn.NormalLikelihood(0.1), jnp.ones((3, 2)), key=getkey()
    )
    assert np.all(np.asarray(predictive.epistemic) > 0)
