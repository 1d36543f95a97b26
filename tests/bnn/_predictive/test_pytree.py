"""A predictive is a pytree of the mixture's parameters."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn
from jaxprob.bnn._predictive import predict as _predict

X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
Y = np.zeros((5, 2), np.float32)


def posterior():
    net = eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0))
    return bnn.bayesianize(net, scale=0.3)


def predictive(key=1, likelihood=None, x=X):
    likelihood = bnn.NormalLikelihood(0.1) if likelihood is None else likelihood
    key = jax.random.key(key) if isinstance(key, int) else key
    return bnn.predict(posterior(), likelihood, x, key=key, num_samples=7, batch_size=2)


def statistics(p):
    return p.mean, p.epistemic, p.log_prob(Y), p.sample(key=jax.random.key(2))


@pytest.mark.parametrize("keep", [True, False])
def test_it_passes_through_jit_as_argument_and_result(monkeypatch, keep):
    if not keep:
        monkeypatch.setattr(_predict, "KEEP_BYTES", 0)
    expected = predictive()
    for made in (expected, jax.jit(lambda x: predictive(x=x))(X)):
        for found in (statistics(made), jax.jit(statistics)(made)):
            for a, b in zip(found, statistics(expected), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert expected.num_rows == 5
    assert expected.num_samples == 7


@pytest.mark.parametrize("keep", [True, False])
def test_many_are_mapped_over(monkeypatch, keep):
    if not keep:
        monkeypatch.setattr(_predict, "KEEP_BYTES", 0)
    keys = jax.random.split(jax.random.key(3), 2)
    stacked = jax.vmap(lambda key: predictive(key))(keys)
    means = jax.vmap(lambda p: p.mean)(stacked)
    assert means.shape == (2, 5, 2)
    for mean, key in zip(means, keys, strict=True):
        np.testing.assert_allclose(mean, predictive(key).mean, rtol=1e-5, atol=1e-6)


def test_gradients_reach_its_parameters():
    made = predictive()
    slope = jax.grad(lambda p: p.log_prob(Y).sum())(made)
    (scale,) = jax.tree.leaves(slope.likelihood)
    residuals = Y[:, None] - np.asarray(made.outputs)
    logs = -0.5 * (residuals**2).sum(-1) / 0.01
    share = np.exp(logs - logs.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    np.testing.assert_allclose(
        slope.outputs, share[..., None] * residuals / 0.01, rtol=1e-3, atol=1e-4
    )
    by_hand = (share[..., None] * (residuals**2 / 0.1**3 - 1 / 0.1)).sum()
    np.testing.assert_allclose(scale, by_hand, rtol=1e-3)


def test_a_value_traced_inside_a_program_is_not_stored():
    made = predictive()
    with jax.checking_leaks():
        inside = jax.jit(lambda shift: made.mean + shift)(jnp.zeros(()))
    np.testing.assert_allclose(made.mean, inside, rtol=1e-5, atol=1e-6)


def test_a_statistic_is_computed_once():
    made = predictive()
    assert made.mean is made.mean
    again = jax.tree.map(lambda a: a + 1.0, made)
    assert not np.allclose(again.mean, made.mean)


def test_any_outputs_make_one():
    outputs = jnp.arange(12.0).reshape(3, 4)
    made = bnn.Predictive(outputs, bnn.NormalLikelihood(2.0))
    np.testing.assert_allclose(made.mean, outputs.mean(1))
    np.testing.assert_allclose(made.variance, outputs.var(1) + 4.0)


def test_a_likelihood_that_is_a_function_passes_through():
    made = predictive(likelihood=lambda f: dist.Normal(f, 0.5))
    assert np.allclose(jax.jit(lambda p: p.aleatoric)(made), 0.25)
    assert "Normal" in repr(made)
