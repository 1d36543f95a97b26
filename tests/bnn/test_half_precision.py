"""Weights of half precision: what is summed, inverted or averaged is float32.

bfloat16 has eight bits: 256 + 1 is 256, 0.999 is 1, and LAPACK has no roots for it.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn

ROWS = 16
LIKELIHOOD = bnn.NormalLikelihood(0.5)
JOINT = bnn.LogJoint(LIKELIHOOD, bnn.IsotropicNormal(0.7), ROWS)
SGD = optax.sgd(0.0)


def linear(dtype):
    """The same numbers in every dtype."""
    model = eqx.nn.Linear(3, "scalar", key=jax.random.key(0), dtype=jnp.bfloat16)
    return jax.tree.map(lambda a: a.astype(dtype), model)


def rows(dtype):
    x = jax.random.normal(jax.random.key(1), (ROWS, 3), jnp.bfloat16)
    return x.astype(dtype), jnp.sin(x[:, 0]).astype(dtype)


METHODS = {
    "MAP": bnn.MAP(JOINT, SGD),
    "MeanFieldVI": bnn.MeanFieldVI(JOINT, SGD),
    "LowRankVI": bnn.LowRankVI(JOINT, SGD),
    "FullRankVI": bnn.FullRankVI(JOINT, SGD),
    "IVON": bnn.IVON(JOINT, 0.01, beta2=0.5),
    "SWAG": bnn.SWAG(bnn.MAP(JOINT, SGD), num_warmup=0, thin=1),
    "SGLD": bnn.SGLD(JOINT, 1e-4, num_warmup=0, thin=1, num_draws=2),
    "SGHMC": bnn.SGHMC(JOINT, 1e-4, num_warmup=0, thin=1, num_draws=2),
    "HMC": bnn.HMC(
        JOINT,
        num_leapfrog=2,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
    ),
    "NUTS": bnn.NUTS(
        JOINT,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
        max_doublings=2,
    ),
    "MCLMC": bnn.MCLMC(
        JOINT,
        num_warmup=0,
        num_draws=1,
        num_chains=2,
        initial="model",
        step_size=1e-3,
        thin=2,
    ),
    **{
        f"Laplace, {structure}": bnn.Laplace(bnn.MAP(JOINT, SGD), structure)
        for structure in ("full", "kronecker", "low_rank", "diagonal")
    },
}


def posterior(name, dtype):
    method, data, key = METHODS[name], rows(dtype), jax.random.key(2)
    method.check(linear(dtype), data)
    state = method.init(linear(dtype), key=key)
    for _ in range(2):
        state, info = eqx.filter_jit(method.update)(state, data, key=key)
        assert np.isfinite(np.asarray(info["loss"], np.float32))
    return method.posterior(state, [data], key=key)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_bfloat16(name):
    found = posterior(name, jnp.bfloat16)
    drawn = found.sample(key=jax.random.key(3))
    assert drawn.weight.dtype == drawn.bias.dtype == jnp.bfloat16
    predictive = bnn.predict(
        found, LIKELIHOOD, rows(jnp.bfloat16)[0], key=jax.random.key(4), num_samples=3
    )
    assert np.all(np.isfinite(np.asarray(predictive.mean, np.float32)))


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank", "diagonal"])
def test_the_precision_is_that_of_single_precision(structure):
    """The model is linear, so that its Jacobian, the inputs, is exact in both."""

    def precision(dtype):
        method = METHODS[f"Laplace, {structure}"]
        data = rows(dtype)
        found = method.posterior(method.init(linear(dtype)), [data])
        assert found.tau().dtype == jnp.float32
        basis = jnp.eye(4, dtype=jnp.float32)
        return found.curvature.covariance(found.tau(), basis)

    half, full = precision(jnp.bfloat16), precision(jnp.float32)
    assert np.allclose(half, full, rtol=0.0, atol=1e-2 * np.max(np.abs(full)))


@pytest.mark.slow
def test_small_steps_of_a_chain_are_not_lost():
    method = METHODS["SGLD"]
    state = method.init(linear(jnp.bfloat16), key=jax.random.key(2))
    assert state.position.dtype == state.draws.dtype == jnp.float32
    before = state.position
    state, _ = method.update(state, rows(jnp.bfloat16), key=jax.random.key(3))
    moved = np.abs(np.asarray(state.position - before))
    assert np.all(moved > 0.0)
    assert np.all(moved < 0.02)  # noise of scale sqrt(2e-4 / 16) = 0.0035


@pytest.mark.slow
def test_ivon_averages_its_curvature():
    optimizer = bnn.ivon(0.1, ROWS, beta2=0.9999)
    params = jnp.ones(3, jnp.bfloat16)
    state: Any = optimizer.init(params)
    assert state.hess.dtype == state.momentum.dtype == jnp.float32
    drawn = bnn.sample_ivon(params, state, key=jax.random.key(0))
    assert drawn.dtype == jnp.bfloat16
    moved: Any
    after: Any
    moved, after = optimizer.update(2.0 * drawn, state, params, drawn=drawn)
    assert moved.dtype == jnp.bfloat16
    drawn, params = (np.asarray(a, np.float64) for a in (drawn, params))
    hat = 2.0 * drawn * (drawn - params) / np.asarray(state.scale) ** 2
    expected = 0.9999 + 1e-4 * hat + 0.5e-8 * (1.0 - hat) ** 2 / (1.0 + 1e-4)
    assert np.allclose(after.hess, expected, rtol=1e-5)
    assert np.all(after.hess != 1.0)


@pytest.mark.slow
def test_sums_over_many_weights():
    many = jnp.full((5000,), 0.5, jnp.bfloat16)
    prior = bnn.IsotropicNormal(1.0)
    exact = -0.5 * (0.25 + np.log(2 * np.pi)) * many.size
    assert np.allclose(bnn.log_prior(prior, many), exact, rtol=1e-5)
    leaf = bnn.Gaussian.of(many, 0.5)
    scale = np.log1p(np.exp(np.asarray(leaf.rho, np.float64)))
    kl = np.sum(0.5 * (scale**2 + 0.25 - 1.0) - np.log(scale))
    assert np.allclose(bnn.kl(leaf, prior), kl, rtol=1e-5)
    assert np.allclose(leaf.kl(prior("", leaf)), kl, rtol=1e-5)
    entropy = np.sum(np.log(scale) + 0.5 * np.log(2 * np.pi * np.e))
    assert np.allclose(leaf.entropy(), entropy, rtol=1e-5)


@pytest.mark.slow
def test_the_log_likelihood_of_many_rows():
    x = jnp.ones((3000, 3), jnp.bfloat16)
    y = jnp.full(3000, 0.5, jnp.bfloat16)
    joint = bnn.LogJoint(bnn.NormalLikelihood(1.0), bnn.IsotropicNormal(1.0), 3000)
    still = jax.tree.map(jnp.zeros_like, linear(jnp.bfloat16))
    value = joint.log_likelihood(still, (x, y), key=jax.random.key(0))
    each = jnp.asarray(-0.5 * (0.25 + np.log(2 * np.pi)), jnp.bfloat16)
    assert np.allclose(value, 3000 * float(each), rtol=0.01)
    assert value.dtype == jnp.float32


def test_data_of_half_precision_are_real_numbers():
    x, y = rows(jnp.bfloat16)
    method = METHODS["MAP"]
    method.check(linear(jnp.bfloat16), (x, y))
    bad = y.at[3].set(jnp.nan)
    with pytest.raises(ValueError, match=r"y holds 1 non-finite.*row 3"):
        method.check(linear(jnp.bfloat16), (x, bad))


@pytest.mark.slow
def test_moments_of_a_path():
    method = METHODS["SWAG"]
    state = method.init(linear(jnp.bfloat16))
    assert state.mean.dtype == state.squares.dtype == jnp.float32
    still, _ = method.update(state, rows(jnp.bfloat16), key=jax.random.key(0))
    start, _ = jaxprob.tree.ravel(linear(jnp.float32))
    assert np.array_equal(still.mean, start)
