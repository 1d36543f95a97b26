"""Log determinants from one factorisation, against those of each prior anew."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from jaxprob import bnn
from jaxprob.bnn._laplace.newton import newton_ascent
from jaxprob.bnn._laplace.spectrum import spectrum

PRIORS = {
    "one": bnn.FanInNormal(1.0),
    "layers": bnn.PriorByPath(
        {"layers.0": bnn.FanInNormal(1.0), "*": bnn.IsotropicNormal(0.5)}
    ),
    "leaves": bnn.PriorByPath(
        {
            "layers.0.bias": bnn.IsotropicNormal(2.0),
            "layers.0.weight": bnn.IsotropicNormal(0.7),
            "*": bnn.IsotropicNormal(0.5),
        }
    ),
}


@pytest.fixture(scope="module")
def curvatures():
    with jax.enable_x64(True):
        model = eqx.nn.MLP(2, 2, 3, 1, activation=jnp.tanh, key=jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (20, 2))
        joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), PRIORS["one"], num_data=20)
        found = {}
        for structure in ("full", "kronecker"):
            point = bnn.MAP(joint, optax.sgd(0.1))
            method = bnn.Laplace(point, structure)
            found[structure] = method.posterior(method.init(model), [(x, jnp.sin(x))])
    return found


def precision(posterior, name, factors):
    """Precision of the prior with each of its scales multiplied."""
    scales, unravel = ravel_pytree(PRIORS[name])
    prior = unravel(scales * jnp.asarray(factors)[: scales.size])
    return eqx.tree_at(lambda q: q.prior, posterior, prior).tau()


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("structure", ["full", "kronecker"])
def test_one_factorisation_has_the_log_determinants_of_many_priors(
    x64, curvatures, structure, name
):
    posterior = curvatures[structure]
    ones = jnp.ones(3)
    start = precision(posterior, name, ones)
    moves = ((1.3, 0.6, 1.1), (0.5, 1.7, 2.0))
    ratios = jnp.stack([precision(posterior, name, m) / start for m in moves])
    log_det = spectrum(posterior.curvature, start, ratios)
    found, exact = map(
        jax.jit,
        (jax.value_and_grad(log_det), jax.value_and_grad(posterior.curvature.log_det)),
    )
    for factors in (ones, jnp.array([0.1, 3.0, 0.2]), jnp.array([5.0, 0.02, 9.0])):
        tau = precision(posterior, name, factors)
        (own, slope), (value, expected) = found(tau), exact(tau)
        assert np.isclose(own, value, rtol=0.0, atol=1e-9)
        # Each factor's derivative is a sum over its weights.
        assert np.isclose(jnp.sum(tau * slope), jnp.sum(tau * expected), rtol=1e-9)


@pytest.mark.slow
def test_priors_that_change_column_by_column_are_factorised_anew(x64, curvatures):
    posterior = curvatures["kronecker"]
    start = precision(posterior, "one", jnp.ones(3))
    columns = jnp.array([1.0, 4.0, 1.0, 4.0, 1.0, 4.0])
    tau = start.at[:6].multiply(columns)
    log_det = spectrum(posterior.curvature, start, (tau / start)[None])
    exact = posterior.curvature.log_det(tau)
    assert np.isclose(log_det(tau), exact, rtol=0.0, atol=1e-9)


@pytest.mark.slow
def test_second_derivatives_of_a_full_matrix_are_exact(x64, curvatures):
    """The Hessian by the inverse, against differences of the gradient."""
    posterior = curvatures["full"]
    start = precision(posterior, "leaves", jnp.ones(3))
    ratios = (precision(posterior, "leaves", (1.5, 0.5, 0.8)) / start)[None]
    log_det = spectrum(posterior.curvature, start, ratios)

    def function(logs):
        return log_det(precision(posterior, "leaves", jnp.exp(logs)))

    at, step = jnp.array([0.1, -0.2, 0.3]), 1e-5
    found = jax.hessian(function)(at)
    for i, unit in enumerate(np.eye(3)):
        above, below = (jax.grad(function)(at + s * step * unit) for s in (1, -1))
        expected = (above - below) / (2 * step)
        assert np.allclose(found[i], expected, rtol=1e-5, atol=1e-7)


def test_newton_finds_a_far_maximum_and_says_where_there_is_none(x64):
    def far(x):
        return -jnp.exp(x[0] - 9.0) + x[0] - 0.5 * jnp.exp(-2 * x[1]) - x[1] + 5e-2

    at, reached = newton_ascent(far, jnp.zeros(2), num_steps=50)
    assert reached
    assert np.allclose(at, [9.0, 0.0], atol=1e-6)
    _, reached = newton_ascent(far, jnp.zeros(2), num_steps=2)
    assert not reached
    _, reached = newton_ascent(lambda x: jnp.sum(x), jnp.zeros(2), num_steps=50)
    assert not reached
