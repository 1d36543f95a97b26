"""Draws by conjugate gradients: each is the dense solution of its right-hand side."""

import functools
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
from jaxprob.bnn._laplace import matrix_free
from jaxprob.bnn._laplace.conjugate_gradients import conjugate_gradients
from jaxprob.bnn._laplace.curvature_pass import curvature
from jaxprob.bnn._laplace.dense import full_matrix
from jaxprob.bnn._laplace.gauss_newton import GaussNewton, curvature_noise
from jaxprob.bnn._laplace.output_gaussian import LinearisedNetwork
from jaxprob.bnn._weights.apply import call_model

ROWS = 10
KEY = jax.random.key(3)


def joint(num_data=ROWS, temperature=1.0):
    return bnn.LogJoint(
        bnn.CategoricalLikelihood(),
        bnn.FanInNormal(),
        num_data=num_data,
        temperature=temperature,
    )


def scene() -> tuple[Any, Any, Any, Any]:
    """A network of 21 weights, and rows whose weights differ."""
    model = eqx.nn.MLP(2, 3, 3, 1, activation=jnp.tanh, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (ROWS, 2))
    y = jax.random.randint(jax.random.key(2), (ROWS,), 0, 3)
    return model, x, y, jnp.linspace(0.0, 2.0, ROWS)


def split(x, y, weight):
    """Two batches, the second padded to the size of the first."""
    second = (x[6:], y[6:], weight[6:])
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:2]]), second)
    mask = jnp.arange(6) < 4
    return [(x[:6], y[:6], weight[:6]), jaxprob.Batch(padded, mask)]


def everything(model):
    return jax.tree.map(eqx.is_inexact_array, model)


@functools.cache
def posteriors():
    """The dense posterior, and a hundred draws with what was solved for each."""
    model, x, y, weight = scene()
    batches = split(x, y, weight)
    full = bnn.Laplace(bnn.MAP(joint(), optax.sgd(0.1)))
    method = bnn.MatrixFreeLaplace(
        full.method, num_samples=100, tolerance=1e-11, model_batch_size=50
    )
    systems = []

    def recorded(product, b, scale, **settings):
        systems.append((b, scale))
        return conjugate_gradients(product, b, scale, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matrix_free, "conjugate_gradients", recorded)
        found = method.posterior(method.init(model), batches, key=KEY)
    b = jnp.concatenate([b for b, _ in systems])
    return full.posterior(full.init(model), batches), found, b, systems[0][1]


@pytest.fixture
def both(x64):
    return posteriors()


def precision(full):
    return np.asarray(full.curvature.matrix) + np.diag(full.tau())


def test_each_draw_is_the_dense_solution(both):
    full, found, b, _ = both
    exact = np.linalg.solve(precision(full), np.asarray(b).T).T
    assert np.allclose(found.deviations, exact, rtol=0.0, atol=1e-8)
    assert found.num_atoms == 200
    assert np.all(np.asarray(found.residuals) < 1e-11)


def test_draws_have_the_covariance_of_the_dense_posterior(both):
    """Their squares in the precision are chi-squared, in each eigenvector too."""
    full, found, _, _ = both
    values, vectors = np.linalg.eigh(precision(full))
    squares = (np.asarray(found.deviations) @ vectors) ** 2 * values
    assert abs(squares.mean() - 1.0) < 4 * np.sqrt(2.0 / squares.size)
    assert np.all(np.abs(squares.mean(0) - 1.0) < 5 * np.sqrt(2.0 / len(squares)))


def test_log_evidence_is_the_dense_one_within_its_error(both):
    """And of each draw the quadrature is the function of the dense matrix."""
    full, found, b, scale = both
    exact, error = full.log_evidence(), found.log_evidence_error()
    assert abs(found.log_evidence() - exact) < 4 * error
    assert 0.0 < error < 0.5
    root = np.sqrt(np.asarray(scale))
    values, vectors = np.linalg.eigh(precision(full) / np.outer(root, root))
    parts = (np.asarray(b) / root @ vectors) ** 2 * np.log(values) / values
    log_det = np.linalg.slogdet(precision(full))[1]
    each = parts.sum(1) + np.sum(np.log(scale))
    by_draw = np.asarray(exact) + 0.5 * log_det - 0.5 * each
    assert np.allclose(found.log_evidences, by_draw, rtol=0.0, atol=1e-7)


def test_predictions_have_the_mode_in_the_middle_and_the_variance_of_the_draws(both):
    full, found, _, _ = both
    x = scene()[1][:3]
    likelihood = bnn.CategoricalLikelihood()
    outputs = bnn.predict(found, likelihood, x, key=KEY).outputs
    mean, covariance = full.output_distribution(x)
    assert np.allclose(outputs.mean(1), mean, rtol=0.0, atol=1e-10)
    jacobian = jax.vmap(LinearisedNetwork(full.params, full.rest, call_model).at)(x)[1]
    moved = jnp.einsum("nod,sd->nso", jacobian, found.deviations)
    assert np.allclose(outputs.var(1), jnp.mean(moved**2, 1), rtol=0.0, atol=1e-10)
    exact = jnp.diagonal(covariance, axis1=1, axis2=2)
    assert np.all(abs(outputs.var(1) / exact - 1.0) < 5 * np.sqrt(2.0 / 100))


@pytest.mark.parametrize("kind", ["ggn", "fisher"])
def test_the_noise_of_a_row_is_a_root_of_its_curvature(x64, kind):
    """Of unit vectors in place of the noise the products add up to the matrix."""
    model, x, y, weight = scene()
    args = (joint(), model, everything(model), x[:4], y[:4], weight[:4], kind)
    size = 3 if kind == "ggn" else 1
    eye = jnp.eye(4 * size).reshape(4 * size, 4, size)
    draws, values = jax.jit(lambda noise: curvature_noise(*args, noise))(
        eye.transpose(1, 0, 2)
    )
    matrix, expected = jax.jit(lambda: full_matrix(*args))()
    assert np.allclose(draws.T @ draws, matrix, rtol=0.0, atol=1e-12)
    assert np.allclose(values, expected)


def test_a_pass_is_that_of_the_dense_matrix(x64):
    """Also with other numbers of rows than N, weights, and rows that are padding."""
    model, x, y, weight = scene()
    batches, flags = split(x, y, weight), everything(model)
    twice = joint(num_data=2 * ROWS)
    settings: Any = {"kind": "ggn", "rank": 1, "sharing": "scaled"}
    exact = curvature(
        twice, model, flags, batches, jnp.ones(21), structure="full", **settings
    )
    matrix = np.asarray(exact.curvature.matrix)  # type: ignore[attr-defined]
    passes = GaussNewton(twice, model, flags, iter(batches), "ggn")
    noise = passes.noise(jax.random.split(KEY, 1000))
    assert np.allclose(noise.values, exact.values)
    assert np.allclose(noise.num_targets, exact.num_targets)
    values, vectors = np.linalg.eigh(matrix)
    squares = np.mean((np.asarray(noise.draws) @ vectors) ** 2, 0)
    large = values > 1e-3
    assert np.all(abs(squares / values - 1.0)[large] < 5 * np.sqrt(2.0 / 1000))
    product = passes.product(jnp.eye(21)[:5])
    assert np.allclose(product, matrix[:5], rtol=0.0, atol=1e-12)
    assert passes.passes == 2


def test_draws_depend_on_temperature_and_not_on_how_many_are_solved_for(x64):
    """Neither on their number nor on that of a batch; with the root of T they grow."""
    model, x, y, _ = scene()
    methods = [
        bnn.MatrixFreeLaplace(
            bnn.MAP(joint(temperature=temperature), optax.sgd(0.1)),
            num_samples=num,
            tolerance=1e-11,
            model_batch_size=size,
        )
        for num, size, temperature in ((3, 1, 1.0), (4, 4, 1.0), (3, 1, 2.0))
    ]
    first, second, hot = (
        m.posterior(m.init(model), (x, y), key=KEY).deviations for m in methods
    )
    assert np.allclose(hot, np.sqrt(2.0) * first, rtol=0.0, atol=1e-8)
    assert np.allclose(first, second[:3], rtol=0.0, atol=1e-8)


def test_the_residual_is_that_of_the_solution(x64):
    """In single precision the recursion's would be too small; it begins again."""
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 40)))
    matrix = (basis * np.logspace(0.0, 4.0, 40)) @ basis.T
    a = jnp.asarray(matrix, jnp.float32)
    b = jax.random.normal(KEY, (2, 40), jnp.float32)
    scale = jnp.diag(a)
    found, facts = conjugate_gradients(
        jax.jit(lambda v: v @ a), b, scale, tolerance=1e-6, max_steps=400
    )
    rest = np.asarray(b, np.float64) - np.asarray(found, np.float64) @ np.asarray(a)
    size = np.sqrt(np.asarray(scale, np.float64))
    norms = [np.linalg.norm(r / size, axis=1) for r in (rest, np.asarray(b))]
    assert np.allclose(facts.residuals, norms[0] / norms[1], rtol=0.5)
    assert np.all(facts.residuals < 1e-4)
    assert facts.products <= 400


def test_too_few_steps_are_said_and_kept():
    model, x, y, _ = scene()
    method = bnn.MatrixFreeLaplace(
        bnn.MAP(joint(), optax.sgd(0.1)), num_samples=2, max_steps=3
    )
    with pytest.warns(UserWarning, match=r"2 of 2 draws have not .* max_steps=3,"):
        posterior = method.posterior(method.init(model), (x, y), key=KEY)
    assert np.all(np.asarray(posterior.residuals) > 1e-3)
    assert posterior.num_passes == 2 + 1 + 3  # diagonal, right-hand sides, steps


class Rate(eqx.Module):
    rate: jax.Array

    def __call__(self, x):
        return self.rate * x


def ensemble(parts):
    stack = jax.tree.map(
        lambda *a: jnp.stack(a) if eqx.is_array(a[0]) else a[0], *parts
    )
    return bnn.EnsemblePosterior(stack, len(parts))


@pytest.mark.parametrize("mixed", [bnn.Mixture, ensemble])
def test_parts_are_linearised_in_coordinates_at_their_own_modes(x64, mixed):
    """Of a positive weight w = exp(u) the function is linear in u, at each mode."""
    x = jnp.linspace(0.5, 1.5, 5)
    log_joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.5), dist.LogNormal(0.0, 1.0), num_data=5, temperature=2.0
    )
    method = bnn.MatrixFreeLaplace(
        bnn.MAP(log_joint, optax.sgd(0.1)), num_samples=2, tolerance=1e-11
    )
    rates = (1.5, 3.0)
    parts = [
        method.posterior(method.init(Rate(jnp.asarray(r))), (x, 2.0 * x), key=KEY)
        for r in rates
    ]
    assert np.all(np.isnan(parts[0].log_evidences))
    outputs = bnn.predict(mixed(parts), log_joint.likelihood, x[:2], key=KEY).outputs
    z = [np.asarray(part.deviations)[:, 0] for part in parts]
    factors = [
        r * (1.0 + sign * d)
        for r, part in zip(rates, z, strict=True)
        for d in part
        for sign in (1, -1)
    ]
    assert np.allclose(outputs, np.outer(x[:2], factors), rtol=0.0, atol=1e-10)
    models = [parts[0].atom(i).rate for i in range(4)]
    around = [1.5 * np.exp(s * d) for d in z[0] for s in (1, -1)]
    assert np.allclose(models, around)


def correlated():
    model, x, y, _ = scene()
    full = bnn.Laplace(bnn.MAP(joint(), optax.sgd(0.1)))
    prior = full.posterior(full.init(model), (x, y)).as_prior()
    return bnn.LogJoint(bnn.CategoricalLikelihood(), prior, num_data=ROWS)


def no_information(logits):
    return dist.MixtureSameFamily(
        dist.Categorical(logits=logits), dist.Normal(jnp.zeros(3), jnp.ones(3))
    )


def posterior(log_joint=None, *, batches: Any = "rows", key: Any = KEY, **settings):
    model, x, y, _ = scene()
    if batches == "real":
        batches = (x, x[:, 0])
    elif batches == "rows":
        batches = (x, y)
    point = bnn.MAP(log_joint or joint(), optax.sgd(0.1))
    method = bnn.MatrixFreeLaplace(point, **settings)
    return method.posterior(method.init(model), batches, key=key)


MISUSES = {
    "no batches": (lambda: posterior(batches=None), r"posterior\(state, \[\(x, y\)\]"),
    "no key": (lambda: posterior(key=None), r"key=key"),
    "tolerance": (lambda: posterior(tolerance=0.0), r"tolerance=0\.0"),
    "one draw": (lambda: posterior(num_samples=1), r"num_samples=1: at least 2"),
    "a correlated prior": (lambda: posterior(correlated()), r"structure='full'"),
    "no information": (
        lambda: posterior(
            bnn.LogJoint(no_information, bnn.FanInNormal(), num_data=ROWS),
            batches="real",
        ),
        r"no known expected information, .* kind='fisher'",
    ),
    "inside of a program": (
        lambda: jax.jit(lambda key: posterior(key=key).deviations)(KEY),
        r"outside of jax\.jit",
    ),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_an_error_with_its_remedy(name):
    call, message = MISUSES[name]
    with pytest.raises(ValueError, match=message):
        call()
