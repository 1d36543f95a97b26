"""Laplace is exact on linear regression, in every structure that can hold it."""

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian

from ...unhooked import unhooked


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


def at_mode(problem, key):
    model = problem.model(key=key)
    return jaxprob.tree.ravel(model)[1](problem.mean)


def laplace(joint, structure: Any = "full", **kwargs) -> Any:
    return bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), structure, **kwargs)


def fitted(problem, key, structure="full", temperature=1.0, batch_size=30):
    method = laplace(problem.log_joint(temperature=temperature), structure)
    data = (np.asarray(problem.x), np.asarray(problem.y))
    loader = jaxprob.ArrayLoader(data, batch_size=batch_size, shuffle=True)
    return method.posterior(method.init(at_mode(problem, key)), loader)


def covariance(posterior):
    tau = posterior.tau()
    return posterior.curvature.covariance(tau, jnp.eye(tau.size, dtype=tau.dtype))


EXACT = [
    ("full", 7),
    ("full", 30),
    ("kronecker", 7),
    ("kronecker", 30),
    ("low_rank", 7),
]


@pytest.mark.slow
@pytest.mark.parametrize(("structure", "batch_size"), EXACT)
def test_covariance_evidence_and_predictive_are_exact(
    problem, getkey, structure, batch_size
):
    """Low rank too, as it keeps more directions than there are."""
    posterior = fitted(problem, getkey(), structure, batch_size=batch_size)
    assert_exact(posterior, problem, getkey)
    drawn = posterior.sample(key=getkey())
    truth = dist.MultivariateNormal(problem.mean, problem.covariance)
    expected = truth.log_prob(problem.vector(drawn))
    assert np.allclose(posterior.log_prob(drawn), expected, rtol=0.0, atol=1e-8)


def assert_exact(posterior, problem, getkey, features=lambda x: x, dim=3):
    """Covariance, evidence and predictive, in 1e-8."""

    def equal(a, b):
        return np.allclose(a, b, rtol=0.0, atol=1e-8)

    assert equal(covariance(posterior), problem.covariance)
    assert equal(posterior.log_evidence(), problem.log_evidence)
    x = 3 * jax.random.normal(getkey(), (5, dim))
    mean, variance = problem.predictive(features(x))
    out, spread = posterior.output_distribution(x)
    assert equal(out[:, 0], mean)
    assert equal(spread[:, 0, 0] + problem.noise**2, variance)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("structure", ["full", "kronecker", "low_rank"])
def test_the_last_layer_on_fixed_features_is_exact(x64, getkey, structure, bias):
    """A head at its mode given the body, whose prior and curvature do not count."""
    model = eqx.nn.MLP(
        2, "scalar", 3, 1, activation=jnp.tanh, use_final_bias=bias, key=getkey()
    )

    def features(x):
        return jnp.tanh(jax.vmap(model.layers[0])(x))

    x = jax.random.normal(getkey(), (30, 2))
    y = jnp.sin(2.0 * x[:, 0]) + 0.4 * jax.random.normal(getkey(), (30,))
    head = LinearGaussian(features(x), y, 0.4, 0.8, bias)
    mode = jaxprob.tree.ravel(model, "layers.1")[1](head.mean)
    method = laplace(head.log_joint(), structure, where="layers.1")
    posterior = method.posterior(method.init(mode), [(x, y)])
    assert_exact(posterior, head, getkey, features, dim=2)


def test_the_diagonal_is_the_diagonal(problem, getkey):
    posterior = fitted(problem, getkey(), "diagonal")
    expected = np.diag(1.0 / np.diag(problem.precision))
    assert np.allclose(covariance(posterior), expected, rtol=0.0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["full", "diagonal", "kronecker", "low_rank"])
def test_draws_have_the_covariance_of_the_structure(problem, getkey, structure):
    posterior = fitted(problem, getkey(), structure, temperature=0.5)
    num = 20_000
    draws = jax.jit(jax.vmap(lambda k: problem.vector(posterior.sample(key=k))))(
        jax.random.split(getkey(), num)
    )
    exact = 0.5 * np.asarray(covariance(posterior))
    sd = np.sqrt(np.diag(exact))
    centred = (np.asarray(draws) - np.asarray(problem.mean)) / sd
    assert np.all(np.abs(centred.mean(0)) < 5 / np.sqrt(num))
    correlation = exact / np.outer(sd, sd)
    error = np.sqrt((1 + correlation**2) / num)
    assert np.all(np.abs(centred.T @ centred / num - correlation) < 5 * error)
    # And the density is that of these draws, at their temperature.
    drawn = posterior.sample(key=getkey())
    expected = dist.MultivariateNormal(problem.mean, jnp.asarray(exact)).log_prob(
        problem.vector(drawn)
    )
    assert np.allclose(posterior.log_prob(drawn), expected, rtol=0.0, atol=1e-8)
    _, spread = posterior.output_distribution(problem.x[:4])
    design = problem.design(problem.x[:4])
    variance = np.einsum("ni,ij,nj->n", design, exact, design)
    assert np.allclose(spread[:, 0, 0], variance, rtol=0.0, atol=1e-8)


@pytest.mark.slow
def test_the_gradient_of_the_evidence_is_that_of_the_exact_one(problem, getkey):
    """In prior scale and noise, both through the pass over the data."""
    state = laplace(problem.log_joint()).init(at_mode(problem, getkey()))
    batch = (problem.x, problem.y)

    def approximate(scales):
        joint = bnn.LogJoint(
            bnn.NormalLikelihood(scales[0]), bnn.IsotropicNormal(scales[1]), 30
        )
        return laplace(joint).posterior(state, [batch]).log_evidence()

    def exact(scales):
        design = problem.design(problem.x)
        cov = scales[0] ** 2 * jnp.eye(30) + scales[1] ** 2 * design @ design.T
        return dist.MultivariateNormal(jnp.zeros(30), cov).log_prob(problem.y)

    scales = jnp.array([problem.noise, problem.prior_scale])
    assert np.allclose(approximate(scales), exact(scales), rtol=0.0, atol=1e-8)
    assert np.allclose(
        jax.grad(approximate)(scales), jax.grad(exact)(scales), rtol=0.0, atol=1e-6
    )


@pytest.mark.slow
def test_tuning_finds_the_prior_of_highest_evidence(problem, getkey):
    joint = eqx.tree_at(
        lambda j: j.prior,
        problem.log_joint(),
        bnn.IsotropicNormal(1.0),
        is_leaf=lambda n: isinstance(n, dist.Distribution),
    )
    method = laplace(joint)
    state = method.init(at_mode(problem, getkey()))
    posterior = method.posterior(state, [(problem.x, problem.y)])
    tuned: Any = bnn.tune_prior(posterior)
    # With the mode held fixed: a root of the derivative, on a fine grid.
    grid = tuned.prior.scale * jnp.linspace(0.8, 1.25, 451)
    values = jax.vmap(
        lambda s: eqx.tree_at(
            lambda q: q.prior, posterior, bnn.IsotropicNormal(s)
        ).log_evidence()
    )(grid)
    assert abs(grid[int(jnp.argmax(values))] / tuned.prior.scale - 1) < 2e-3
    assert tuned.log_evidence() > posterior.log_evidence()


@pytest.mark.slow
def test_predict_is_linearised_and_matches_the_exact_predictive(problem, getkey):
    posterior = fitted(problem, getkey())
    x = 3 * jax.random.normal(getkey(), (5, 3))
    num = 4000
    predictive = bnn.predict(
        posterior,
        problem.log_joint().likelihood,
        x,
        key=getkey(),
        num_samples=num,
        model_batch_size=500,
    )
    mean, variance = problem.predictive(x)
    spread = np.asarray(variance) - problem.noise**2
    assert np.all(np.abs(predictive.mean - mean) < 5 * np.sqrt(spread / num))
    ratio = np.asarray(predictive.epistemic) / spread
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / num))


@pytest.fixture
def network(x64, getkey):
    x = jax.random.normal(getkey(), (40, 2))
    y = (jax.random.uniform(getkey(), (40,)) * 3).astype(jnp.int32)
    joint = bnn.LogJoint(bnn.CategoricalLikelihood(), bnn.FanInNormal(1.0), num_data=40)
    model = eqx.nn.MLP(2, 3, 5, 1, activation=jnp.tanh, key=getkey())
    return joint, model, (x, y)


def hessian(joint, model, batch, where):
    vector, unravel = jaxprob.tree.ravel(model, where)

    def negative(vector):
        return -joint.log_likelihood(unravel(vector), batch, key=jax.random.key(0))

    return np.asarray(jax.jit(jax.hessian(negative))(vector))


@pytest.mark.slow
def test_last_layer_ggn_is_the_hessian_and_structures_are_its_parts(network):
    """A softmax over fixed features is a GLM, where GGN and Hessian agree."""
    joint, model, batch = network
    exact = hessian(joint, model, batch, "layers.1")
    out = {}
    for structure in ("full", "diagonal"):
        method = laplace(joint, structure, where="layers.1")
        out[structure] = method.posterior(method.init(model), [batch]).curvature
    assert np.allclose(out["full"].matrix, exact, rtol=0.0, atol=1e-10)
    assert np.allclose(out["diagonal"].diagonal, np.diag(exact), rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_the_ggn_of_logistic_regression_is_its_hessian(x64, getkey):
    model = eqx.nn.Linear(3, "scalar", key=getkey())
    x = jax.random.normal(getkey(), (40, 3))
    y = (jax.random.uniform(getkey(), (40,)) < 0.5).astype(int)
    joint = bnn.LogJoint(bnn.BernoulliLikelihood(), bnn.FanInNormal(), num_data=40)
    exact = hessian(joint, model, (x, y), True)
    for structure in ("full", "diagonal"):
        method = laplace(joint, structure)
        found = method.posterior(method.init(model), [(x, y)]).curvature
        part = found.matrix if structure == "full" else np.diag(found.diagonal)
        expected = exact if structure == "full" else np.diag(np.diag(exact))
        assert np.allclose(part, expected, rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_kronecker_factors_are_the_definition(network):
    """Sums over rows of inputs and of the pre-activations' curvature, by hand."""
    joint, model, (x, y) = network
    method = laplace(joint, "kronecker")
    blocks = method.posterior(method.init(model), [(x, y)]).curvature.blocks
    first, second = model.layers
    hidden = jnp.tanh(jax.vmap(first)(x))
    probs = jax.nn.softmax(jax.vmap(second)(hidden))
    inner = jax.vmap(lambda p: jnp.diag(p) - jnp.outer(p, p))(probs)
    ones = jnp.ones((40, 1))
    for block, inputs, jacobian in zip(
        blocks,
        (x, hidden),
        (
            second.weight[None] * (1 - hidden**2)[:, None],
            jnp.broadcast_to(jnp.eye(3), (40, 3, 3)),
        ),
        strict=True,
    ):
        a = jnp.concatenate([inputs, ones], axis=1)
        assert np.allclose(block.inputs, a.T @ a, rtol=0.0, atol=1e-10)
        b = jnp.einsum("nci,ncd,ndj->ij", jacobian, inner, jacobian) / 40
        assert np.allclose(block.outputs, b, rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_kronecker_algebra_is_that_of_the_dense_matrix(network, getkey):
    joint, model, batch = network
    method = laplace(joint, "kronecker")
    posterior = method.posterior(method.init(model), [batch])
    tau = posterior.tau()
    dim = tau.size
    dense = np.diag(np.asarray(tau))
    for block in posterior.curvature.blocks:
        own = slice(block.start, block.start + block.size)
        basis = block.matrix(jnp.eye(dim)[own])
        dense[own, own] += jnp.einsum(
            "agoi,gop,gij,bgpj->ab", basis, block.outputs, block.inputs, basis
        )
    curvature = posterior.curvature
    assert np.allclose(
        curvature.log_det(tau), np.linalg.slogdet(dense)[1], rtol=0.0, atol=1e-9
    )
    assert np.allclose(
        curvature.covariance(tau, jnp.eye(dim)),
        np.linalg.inv(dense),
        rtol=0.0,
        atol=1e-9,
    )
    delta = jax.random.normal(getkey(), (dim,))
    assert np.allclose(
        curvature.quadratic(tau, delta), delta @ dense @ delta, rtol=1e-10
    )
    root = jax.vmap(lambda k: curvature.sample(tau, key=k))
    draws = np.asarray(jax.jit(root)(jax.random.split(getkey(), 20_000)))
    sd = np.sqrt(np.diag(np.linalg.inv(dense)))
    correlation = np.linalg.inv(dense) / np.outer(sd, sd)
    error = np.sqrt((1 + correlation**2) / 20_000)
    estimate = (draws / sd).T @ (draws / sd) / 20_000
    # About 900 entries: 5 s.e.
    assert np.all(np.abs(estimate - correlation) < 5 * error)


def test_the_empirical_fisher_is_the_sum_of_outer_products(network):
    joint, model, batch = network
    method = laplace(joint, "full", kind="fisher", where="layers.1")
    matrix = method.posterior(method.init(model), [batch]).curvature.matrix
    vector, unravel = jaxprob.tree.ravel(model, "layers.1")

    def one(x, y):
        return jax.grad(lambda v: jax.nn.log_softmax(unravel(v)(x))[y])(vector)

    g = jax.jit(jax.vmap(one))(*batch)
    assert np.allclose(matrix, g.T @ g, rtol=0.0, atol=1e-10)


@pytest.mark.slow
def test_any_likelihood_and_padding_and_missing_rows(network, getkey):
    """Heteroscedastic noise has an indefinite Hessian: its positive part is used."""
    _, _, (x, _) = network
    y = jnp.sin(x[:, :1])
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), bnn.FanInNormal(), num_data=40)
    model = eqx.nn.MLP(2, 2, 5, 1, activation=jnp.tanh, key=getkey())
    method = laplace(joint)
    state = method.init(model)
    full = method.posterior(state, [(x, y)])
    values = np.linalg.eigvalsh(full.curvature.matrix)
    assert values.min() > -1e-8 * values.max()
    padded = jaxprob.Batch(
        (jnp.concatenate([x, x * jnp.nan]), jnp.concatenate([y, y])),
        jnp.arange(80) < 40,
    )
    again = method.posterior(state, [padded])
    assert np.allclose(
        again.curvature.matrix, full.curvature.matrix, rtol=0.0, atol=1e-9
    )
    assert np.allclose(again.log_likelihood, full.log_likelihood, rtol=1e-10)
    halves = method.posterior(state, [(x[:20], y[:20]), (x[20:], y[20:])])
    assert np.allclose(
        halves.curvature.matrix, full.curvature.matrix, rtol=0.0, atol=1e-9
    )
    with pytest.warns(UserWarning, match="the training set has 20 rows"):
        half = method.posterior(state, [(x[:20], y[:20])])
    with pytest.warns(UserWarning, match="the training set has 20 rows"):
        other = method.posterior(state, [(x[20:], y[20:])])
    mean = (half.curvature.matrix + other.curvature.matrix) / 2
    assert np.allclose(mean, full.curvature.matrix, rtol=0.0, atol=1e-9)


@pytest.mark.slow
def test_what_has_no_curvature_is_rejected_by_name(network):
    joint, model, batch = network
    with pytest.raises(ValueError, match="computes the curvature from the training"):
        laplace(joint).posterior(laplace(joint).init(model))
    wide = eqx.nn.MLP(1, 3, 17_000, 1, key=jax.random.key(0))
    x, y = batch
    method = laplace(joint, "kronecker")
    with pytest.raises(ValueError, match=r"no Kronecker factor for layers\.0\.weight"):
        method.posterior(method.init(wide), [(x[:, :1], y)])
    prior = eqx.tree_at(lambda j: j.prior, joint, dist.Laplace(0.0, 1.0))
    with pytest.raises(ValueError, match=r"layers\.0\.weight, Laplace, is not concave"):
        laplace(prior).posterior(laplace(prior).init(model), [batch])
    with unhooked(), pytest.raises(ValueError, match="structure='block'"):
        laplace(joint, "block")


@pytest.mark.slow
def test_the_predictive_of_a_head_differentiates_no_body(getkey):
    """Leaves that no draw changes are no variables of the linearised network."""

    @jax.custom_jvp
    def body(weight, x):
        return jnp.tanh(weight @ x)

    @body.defjvp
    def _(primals, tangents):
        raise AssertionError("the body was differentiated")

    class Net(eqx.Module):
        body: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x):
            return self.head(body(self.body.weight, x))

    net = Net(
        eqx.nn.Linear(2, 5, key=getkey()), eqx.nn.Linear(5, "scalar", key=getkey())
    )
    x = jax.random.normal(getkey(), (12, 2))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=12)
    method = bnn.Laplace(
        bnn.MAP(joint, optax.adam(1e-2)), structure="kronecker", where="head"
    )
    posterior = method.posterior(method.init(net, key=getkey()), [(x, x[:, 0])])
    predictive = bnn.predict(
        posterior, joint.likelihood, x, key=getkey(), num_samples=400
    )
    mean, covariance = posterior.output_distribution(x)
    error = 5.0 * np.sqrt(np.ravel(covariance) / 400)
    assert np.all(np.abs(predictive.mean - np.ravel(mean)) < error)


@pytest.mark.slow
def test_a_precision_that_float32_cannot_hold_is_rejected(getkey):
    """Two inputs that are nearly one, measured exactly: what is left is rounding."""
    x = jax.random.normal(getkey(), (2000, 1)) * jnp.array([[1.0, 1.0, 1.0]])
    y = x[:, 0]
    model = eqx.nn.Linear(3, "scalar", key=getkey())
    joint = bnn.LogJoint(bnn.NormalLikelihood(1e-3), bnn.IsotropicNormal(30.0), 2000)
    method = laplace(joint)
    message = r"in float32 the precision .* is 1\.1e-03\. Set jax_enable_x64, or take"
    with pytest.raises(FloatingPointError, match=message):
        method.posterior(method.init(model), [(x, y)])
    other = laplace(joint, "kronecker")
    posterior = other.posterior(other.init(model), [(x, y)])
    assert np.all(np.isfinite(posterior.sample(key=getkey()).weight))
    broken = eqx.tree_at(lambda m: m.weight, model, jnp.full((1, 3), 1e30))
    for structure in ("full", "diagonal"):
        method = laplace(joint, structure, kind="fisher")
        with pytest.raises(FloatingPointError, match="is not finite at the mode"):
            method.posterior(method.init(broken), [(x, y)])


@pytest.mark.slow
def test_the_pass_over_the_data_multiplies_in_full_precision(network):
    """Whatever a GPU would do by default: nothing is left of a rounded matrix."""
    joint, model, batch = network
    seen, config = set(), cast(Any, jax.config)

    def apply(model, x, *, key):
        seen.add(config.jax_default_matmul_precision)
        return model(x)

    joint = eqx.tree_at(lambda j: j.apply, joint, apply)
    for structure in ("full", "diagonal", "kronecker", "low_rank"):
        method = laplace(joint, structure)
        method.posterior(method.init(model), [batch])
    assert seen == {"highest"}
