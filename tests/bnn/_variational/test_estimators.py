"""Three estimators of one bound: equal in the mean, ordered in variance."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._variational.estimators import per_example, prepare
from jaxprob.testing import LinearGaussian

ESTIMATORS = ("weight", "flipout", "local")


def draws(tree, estimator, x, num, key):
    """Outputs of all rows under `num` keys of the batch."""

    def one(key):
        weight_key, call_key = jax.random.split(key)
        keys = jax.random.split(call_key, len(x))
        if estimator == "weight":
            return jax.vmap(bnn.sample_leaves(tree, key=weight_key))(x)
        model = prepare(tree, estimator, key=weight_key)
        apply = per_example(lambda model, x, *, key: model(x))
        return jax.vmap(lambda x, k: apply(model, x, key=k))(x, keys)

    return np.asarray(eqx.filter_jit(jax.vmap(one))(jax.random.split(key, num)))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_outputs_have_the_moments(estimator, getkey):
    """Mean x'mu, variance sum x^2 sigma^2, covariance across rows shared or zero."""
    layer = eqx.nn.Linear(3, 2, key=getkey())
    tree = bnn.bayesianize(layer, scale=0.8).tree
    x = jax.random.normal(getkey(), (2, 3))
    num = 40_000
    out = draws(tree, estimator, x, num, getkey())
    mean = np.asarray(jax.vmap(layer)(x))
    bias = np.asarray(tree.bias.scale**2)
    variance = np.asarray(x**2 @ (tree.weight.scale**2).T) + bias
    assert np.all(np.abs(out.mean(0) - mean) < 5 * np.sqrt(variance / num))
    # The kurtosis of a sum of Gaussians under fixed signs is a Gaussian's.
    assert np.all(np.abs(out.var(0) / variance - 1) < 5 * np.sqrt(2 / num))
    shared = np.asarray((x[0] * x[1]) @ (tree.weight.scale**2).T) + bias
    expected = shared if estimator == "weight" else np.zeros(2)
    centred = out - out.mean(0)
    products = centred[:, 0] * centred[:, 1]
    error = products.std(0) / np.sqrt(num)
    assert np.all(np.abs(products.mean(0) - expected) < 5 * error)


@pytest.mark.slow
def test_flipout_of_a_convolution_has_the_covariance_of_one_kernel(getkey):
    """Places of one output share their weights: that covariance must survive."""
    conv = eqx.nn.Conv1d(2, 1, 2, key=getkey())
    tree = bnn.bayesianize(conv, scale=0.8).tree
    x = jax.random.normal(getkey(), (1, 2, 4))
    num = 40_000
    out = {e: draws(tree, e, x, num, getkey())[:, 0, 0] for e in ("weight", "flipout")}
    a, b = (np.cov(v.T) for v in out.values())
    sd = np.sqrt(np.diag(a))
    assert np.all(np.abs(a - b) < 5 * np.sqrt(2 * 2 / num) * np.outer(sd, sd))
    assert abs(a[0, 1]) > 0.1 * sd[0] * sd[1]


@pytest.mark.slow
def test_flipout_holds_for_a_layer_that_is_used_twice(getkey):
    class Twice(eqx.Module):
        layer: eqx.nn.Linear

        def __call__(self, x):
            return self.layer(self.layer(x))

    tree = bnn.bayesianize(
        Twice(eqx.nn.Linear(1, 1, False, key=getkey())), scale=0.5
    ).tree
    x = jnp.ones((1, 1))
    num = 40_000
    out = draws(tree, "flipout", x, num, getkey())[:, 0, 0]
    mean, sd = float(tree.layer.weight.mean[0, 0]), 0.5
    # E[w^2] of one weight used twice; two independent ones would give mean^2.
    assert abs(out.mean() - (mean**2 + sd**2)) < 5 * out.std() / np.sqrt(num)
    with pytest.raises(ValueError, match=r"once for an example.*'flipout'"):
        draws(tree, "local", x, 1, getkey())


def attention(key):
    return eqx.nn.MultiheadAttention(2, 4, key=key)


@pytest.mark.slow
def test_local_rejects_attention_and_flipout_takes_it(getkey):
    tree = bnn.bayesianize(attention(getkey())).tree
    x = jax.random.normal(getkey(), (3, 4))
    apply = per_example(lambda model, x, *, key: model(x, x, x))
    model = prepare(tree, "flipout", key=getkey())
    assert apply(model, x, key=getkey()).shape == (3, 4)
    with pytest.raises(ValueError, match="inside a loop or vmap"):
        apply(prepare(tree, "local", key=getkey()), x, key=getkey())


@pytest.fixture
def network(getkey):
    x = jax.random.normal(getkey(), (32, 2))
    y = jnp.sin(x[:, 0])
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=32)
    model = eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 8, key=getkey()),
            eqx.nn.Lambda(jnp.tanh),
            bnn.BayesianLinear(8, "scalar", key=getkey()),
        ]
    )
    return model, joint, (x, y)


def gradients(method, tree, batch, num, key):
    params, rest = eqx.partition(tree, eqx.is_inexact_array)

    def loss(params, key):
        return method._loss(eqx.combine(params, rest), batch, key=key)[0]

    values, grads = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(
        params, jax.random.split(key, num)
    )
    flat = np.concatenate(
        [np.asarray(g).reshape(num, -1) for g in jax.tree.leaves(grads)], axis=1
    )
    return np.asarray(values), flat


@pytest.mark.slow
def test_all_estimators_agree_in_the_mean_and_flipout_is_less_noisy(network, getkey):
    model, joint, batch = network
    tree = bnn.bayesianize(model, scale=0.5).tree
    num = 4000
    out = {}
    for name in ("weight", "sticking", "flipout", "local"):
        sticking = name == "sticking"
        method = bnn.MeanFieldVI(
            joint,
            optax.sgd(1.0),
            estimator="weight" if sticking else name,
            stick_the_landing=sticking,
        )
        out[name] = gradients(method, tree, batch, num, getkey())
    value, gradient = out["weight"]
    for name, (values, grads) in out.items():
        error = np.sqrt((values.var() + value.var()) / num)
        assert abs(values.mean() - value.mean()) < 5 * error + 1e-6, name
        error = np.sqrt((grads.var(0) + gradient.var(0)) / num)
        # 82 comparisons a method: 4.5 s.e. is one false alarm in two thousand runs.
        assert np.all(np.abs(grads.mean(0) - gradient.mean(0)) < 4.5 * error + 1e-6)
    noise = {name: grads.var(0).sum() for name, (_, grads) in out.items()}
    assert noise["flipout"] < 0.6 * noise["weight"]
    assert noise["local"] < 0.5 * noise["weight"]
    assert noise["local"] < noise["flipout"]


@pytest.mark.slow
def test_sticking_the_landing_has_no_noise_where_q_is_exact(x64, getkey):
    """Orthogonal columns: the posterior factorises, and q can be it."""
    x = np.linalg.qr(np.random.default_rng(0).normal(size=(20, 3)))[0] * 3.0
    y = x @ np.array([1.0, -1.0, 0.5]) + 0.3
    problem = LinearGaussian(jnp.asarray(x), jnp.asarray(y), bias=False)
    model = problem.model(key=getkey())
    scale = jnp.sqrt(problem.mean_field_variance)[None]
    tree = eqx.tree_at(
        lambda m: m.weight, model, bnn.Gaussian.of(problem.mean[None], scale)
    )
    batch = (problem.x, problem.y)
    joint = problem.log_joint()
    exact = bnn.MeanFieldVI(joint, optax.sgd(1.0))
    sticking = bnn.MeanFieldVI(joint, optax.sgd(1.0), stick_the_landing=True)
    value, noisy = gradients(exact, tree, batch, 50, getkey())
    landed, quiet = gradients(sticking, tree, batch, 50, getkey())
    assert np.abs(quiet).max() < 1e-10
    assert noisy.std(0).min() > 1e-3
    # And every draw of the bound is the log evidence itself.
    assert np.allclose(-20 * landed, problem.log_evidence, rtol=0.0, atol=1e-8)
    assert value.std() > 1e-3


@pytest.mark.slow
def test_a_prior_without_closed_form_works_with_sticking(network, getkey):
    model, joint, batch = network
    joint = eqx.tree_at(lambda j: j.prior, joint, dist.Laplace(0.0, 1.0))
    method = bnn.MeanFieldVI(joint, optax.adam(1e-2), stick_the_landing=True)
    state = method.init(model)
    assert np.isfinite(method.evaluate(state, batch, key=getkey())["loss"])


@pytest.mark.slow
def test_bad_estimators_are_rejected(network):
    _, joint, _ = network
    with pytest.raises(ValueError, match="needs the drawn weights"):
        bnn.MeanFieldVI(
            joint, optax.sgd(1.0), estimator="local", stick_the_landing=True
        )
