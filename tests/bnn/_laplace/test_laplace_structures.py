"""Convolutions, low rank, other likelihoods: each against a matrix made by hand."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn


def laplace(joint, structure: Any = "full", **kwargs) -> Any:
    return bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, **kwargs)


def fit(joint, model, batches, structure, **kwargs):
    method = laplace(joint, structure, **kwargs)
    return method.posterior(method.init(model), batches)


def dense(posterior):
    """The curvature as a matrix, whatever its structure."""
    dim = jaxprob.tree.count(posterior.params)
    eye = jnp.eye(dim)
    zero = jnp.zeros(dim)

    def form(a, b):
        # Polarisation: quadratic(tau=0) is the bilinear form of G.
        quadratic = posterior.curvature.quadratic
        return 0.25 * (quadratic(zero, a + b) - quadratic(zero, a - b))

    return np.asarray(jax.vmap(jax.vmap(form, (None, 0)), (0, None))(eye, eye))


CONVOLUTIONS = {
    "stride": {"stride": 2, "padding": 1},
    "dilation": {
        "dilation": 2,
        "padding": 2,
        "padding_mode": "REFLECT",
        "use_bias": False,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_one_convolution_is_its_ggn_exactly(x64, getkey, name):
    """With Gaussian noise on every place, weights enter linearly: expand is exact."""
    model = eqx.nn.Conv2d(2, 3, (3, 2), key=getkey(), **CONVOLUTIONS[name])
    x = jax.random.normal(getkey(), (4, 2, 6, 5))
    y = jax.vmap(model)(x) + 0.1
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=4)
    full = fit(joint, model, [(x, y)], "full")
    kronecker = fit(joint, model, [(x, y)], "kronecker")
    assert np.allclose(dense(kronecker), full.curvature.matrix, rtol=0.0, atol=1e-8)
    assert np.allclose(
        kronecker.log_evidence(), full.log_evidence(), rtol=0.0, atol=1e-8
    )
    x_new = x[:1] + 1.0
    _, spread = kronecker.output_distribution(x_new)
    assert np.allclose(spread, full.output_distribution(x_new)[1], rtol=0.0, atol=1e-8)


class Net(eqx.Module):
    conv: eqx.nn.Conv1d
    linear: eqx.nn.Linear

    def __init__(self, key):
        self.conv = eqx.nn.Conv1d(1, 2, 3, key=key)
        self.linear = eqx.nn.Linear(8, 3, key=key)

    def __call__(self, x):
        return self.linear(jnp.tanh(self.conv(x)).ravel())


@pytest.fixture
def network(x64, getkey):
    x = jax.random.normal(getkey(), (12, 1, 6))
    y = jax.random.randint(getkey(), (12,), 0, 3)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(), num_data=12)
    return joint, Net(getkey()), (x, y)


@pytest.mark.slow
def test_factors_of_a_convolution_inside_a_network_are_the_definition(network):
    """Sums over rows and places of patches; means of the curvature there, by hand."""
    joint, net, (x, y) = network
    batches = [(x[:5], y[:5]), (x[5:], y[5:])]
    blocks = fit(joint, net, batches, "kronecker", sharing="expand")
    first, second = blocks.curvature.blocks
    windows = np.stack([np.asarray(x)[:, 0, i : i + 3] for i in range(4)], 1)
    a = np.concatenate([windows, np.ones((12, 4, 1))], 2).reshape(-1, 4)
    assert np.allclose(first.inputs, a.T @ a, rtol=0.0, atol=1e-10)
    hidden = np.tanh(np.asarray(jax.vmap(net.conv)(x)))
    logits = np.asarray(jax.vmap(net)(x))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    inner = np.stack([np.diag(q) - np.outer(q, q) for q in p])
    weight = np.asarray(net.linear.weight).reshape(3, 2, 4)
    jacobian = weight[None] * (1 - hidden**2)[:, None]
    b = np.einsum("ncot,ncd,ndpt->op", jacobian, inner, jacobian) / (12 * 4)
    assert np.allclose(first.outputs, b, rtol=0.0, atol=1e-10)
    assert np.allclose(second.outputs, inner.mean(0), rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_low_rank_is_the_leading_part_and_exact_at_full_rank(
    network, getkey, monkeypatch
):
    joint, net, batch = network
    full = fit(joint, net, [batch], "full")
    dim = len(full.curvature.matrix)
    values, vectors = np.linalg.eigh(full.curvature.matrix)
    for rank in (3, dim):
        low = fit(joint, net, [batch], "low_rank", rank=rank)
        lead = (vectors[:, -rank:] * values[-rank:]) @ vectors[:, -rank:].T
        assert np.allclose(dense(low), lead, rtol=0.0, atol=1e-6)
    tau = full.tau()
    eye = jnp.eye(dim)
    covariance = full.curvature.covariance(tau, eye)
    own = low.curvature.covariance(tau, eye)
    assert np.allclose(own, covariance)
    assert np.allclose(low.log_evidence(), full.log_evidence(), rtol=0.0, atol=1e-6)
    # A draw is linear in its noise: the squares of what each number does add up.
    decomposed = low.curvature.root(tau)

    def drawn(noise):
        with monkeypatch.context() as patch:
            patch.setattr(jax.random, "normal", lambda key, shape, dtype: noise)
            return low.curvature.draw(decomposed, key=jax.random.key(0))

    rows = jnp.stack([drawn(noise) for noise in jnp.eye(2 * dim)])
    assert np.allclose(rows.T @ rows, own, rtol=0.0, atol=1e-10)


def student_t(y, f):
    """The expected information (nu + 1) / ((nu + 3) s^2), at any y."""
    return np.full(len(f), 5.0 / 7.0 / 0.25)


LIKELIHOODS = {
    "poisson": (bnn.PoissonLikelihood(), lambda y, f: np.exp(f)),
    "student": (bnn.StudentTLikelihood(0.5, 4.0), student_t),
    "bernoulli": (
        bnn.BernoulliLikelihood(),
        lambda y, f: np.exp(f) / (1 + np.exp(f)) ** 2,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_other_likelihoods_curve_as_their_formulas_say(x64, getkey, name):
    """A linear model: G is the sum of x x' times the expected information."""
    likelihood, formula = LIKELIHOODS[name]
    x = jax.random.normal(getkey(), (30, 2))
    y = jax.random.poisson(getkey(), 1.0, (30,))
    y = jnp.minimum(y, 1) if name == "bernoulli" else y
    y = y.astype(jnp.float64) if name == "student" else y
    model = eqx.nn.Linear(2, "scalar", key=getkey())
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=30)
    posterior = fit(joint, model, [(x, y)], "full")
    design = np.concatenate([x, np.ones((30, 1))], 1)
    weights = formula(np.asarray(y, float), np.asarray(jax.vmap(model)(x)))
    expected = design.T @ (weights[:, None] * design)
    assert np.allclose(posterior.curvature.matrix, expected, rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_a_heteroscedastic_normal_has_its_expected_information(x64, getkey):
    """Mean and log scale as outputs: diag(1 / s^2, 2), whatever the residuals."""

    def likelihood(out):
        return dist.Normal(out[0], jnp.exp(out[1]))

    x = jax.random.normal(getkey(), (20, 1))
    y = 3.0 * jax.random.normal(getkey(), (20,))
    model = eqx.nn.Linear(1, 2, use_bias=False, key=getkey())
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), num_data=20)
    posterior = fit(joint, model, [(x, y)], "full")
    log_scale = np.asarray(jax.vmap(model)(x))[:, 1]
    squares = np.asarray(x)[:, 0] ** 2
    expected = np.diag([np.sum(squares / np.exp(2 * log_scale)), 2 * squares.sum()])
    assert np.allclose(posterior.curvature.matrix, expected, rtol=0.0, atol=1e-9)


def test_batch_norm_in_training_mode_is_rejected(getkey):
    class Normed(eqx.Module):
        linear: eqx.nn.Linear
        norm: eqx.nn.BatchNorm

        def __init__(self, key):
            self.linear = eqx.nn.Linear(2, 2, key=key)
            self.norm = eqx.nn.BatchNorm(2, axis_name="batch", mode="batch")

        def __call__(self, x, state):
            out, state = self.norm(self.linear(x), state)
            return jnp.sum(out), state

    net, norm_state = eqx.nn.make_with_state(Normed)(getkey())
    x = jax.random.normal(getkey(), (8, 2))
    batch = (x, x[:, 0])
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.5),
        bnn.FanInNormal(),
        num_data=8,
        apply=lambda model, x, key: model(x, norm_state)[0],
    )
    method = laplace(joint, "kronecker")
    state = method.init(net)
    with pytest.raises(ValueError, match=r"norm \(BatchNorm\) is in training"):
        method.posterior(state, [batch])


@pytest.mark.slow
def test_a_prior_that_differs_over_outputs_has_no_kronecker_form(network):
    joint, net, batch = network

    def prior(path, leaf):
        rows = jnp.linspace(0.5, 1.0, leaf.shape[0])
        return dist.Normal(0.0, rows.reshape(-1, *(1,) * (leaf.ndim - 1)))

    joint = bnn.LogJoint(joint.likelihood, prior, num_data=12)
    fit(joint, net, [batch], "diagonal")
    with pytest.raises(ValueError, match="same for all outputs"):
        fit(joint, net, [batch], "kronecker")


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "diagonal", "kronecker", "low_rank"])
def test_a_likelihood_without_curvature_is_told_of(structure, getkey):
    """A density of the user's that is piecewise linear: what is left is the prior."""

    class Absolute(dist.Distribution):
        support: Any = dist.constraints.real

        def __init__(self, loc):
            self.loc = loc
            super().__init__(jnp.shape(loc))

        def log_prob(self, value):
            return -jnp.abs(value - self.loc) / 0.3

    model = eqx.nn.MLP(2, "scalar", 4, 1, key=getkey())
    x = jax.random.normal(getkey(), (6, 2))
    batches = [(x, jnp.sin(x[:, 0]))]
    joint = bnn.LogJoint(lambda f: Absolute(f), bnn.FanInNormal(), num_data=6)
    with pytest.warns(UserWarning, match=r"no curvature .* kind='fisher'"):
        flat = fit(joint, model, batches, structure)
    dim = jaxprob.tree.count(model)
    variance = flat.curvature.covariance(flat.tau(), jnp.eye(dim))
    assert np.allclose(np.diag(variance), 1.0 / flat.tau(), rtol=1e-6)
    fit(joint, model, batches, structure, kind="fisher")  # without a warning


@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank"])
def test_single_precision_keeps_the_digits_of_a_small_variance(structure):
    """A thousand exact rows: the data say a million times what the prior does."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 3)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5]) + 0.01 * rng.normal(size=1000)).astype("f")
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    model = eqx.nn.Linear(3, "scalar", use_bias=False, key=jax.random.key(0))
    model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(w)[None])
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.01), bnn.IsotropicNormal(1.0), num_data=1000
    )
    posterior = fit(joint, model, [(jnp.asarray(x), jnp.asarray(y))], structure)
    x_new = 3.0 * rng.normal(size=(200, 3)).astype("f")
    _, found = posterior.output_distribution(x_new)
    precision = x.T.astype(float) @ x / 0.01**2 + np.eye(3)
    exact = np.sum(x_new @ np.linalg.inv(precision) * x_new, axis=1)
    np.testing.assert_allclose(found[:, 0, 0], exact, rtol=1e-3)
