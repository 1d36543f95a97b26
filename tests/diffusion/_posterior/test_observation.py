"""Measurements: their likelihood, and what is rejected."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

from jaxprob.diffusion import (
    DPS,
    EDM,
    MMPS,
    Measured,
    Observation,
    PiGDM,
    Preconditioned,
    Replacement,
    condition,
)
from jaxprob.diffusion._posterior.noise import weights_and_residuals

Y = np.array([0.3, -1.0, 2.0])


def test_the_likelihood_of_gaussian_noise():
    x, noise = np.array([0.1, 0.2, 0.3]), np.array([0.5, 1.0, 2.0])
    found = Observation(Y, lambda x: 2.0 * x, noise=noise).log_likelihood(
        jnp.asarray(x)
    )
    assert np.isclose(found, scipy.stats.norm.logpdf(Y, 2.0 * x, noise).sum())


def test_the_likelihood_of_a_tree_with_noise_of_each():
    y = {"counts": np.array([3, 0, 2]), "sum": np.array([1.5])}
    noise = {"counts": lambda rate: dist.Poisson(rate), "sum": 0.5}
    observation = Observation(
        y, lambda x: {"counts": jnp.exp(x), "sum": jnp.sum(x)[None]}, noise=noise
    )
    assert not observation.is_gaussian
    x = np.array([0.5, -0.5, 0.2])
    expected = scipy.stats.poisson.logpmf(y["counts"], np.exp(x)).sum()
    expected += scipy.stats.norm.logpdf(1.5, x.sum(), 0.5)
    assert np.isclose(observation.log_likelihood(jnp.asarray(x)), expected, rtol=1e-5)


@pytest.mark.parametrize("missing", [True, np.array([False, True, False])])
def test_missing_entries_have_no_likelihood_and_no_gradient(missing):
    y = Y.copy()
    y[1] = np.nan
    for noise in (0.5, lambda mean: dist.Laplace(mean, 0.5)):
        observation = Observation(y, noise=noise, missing=missing)
        x = jnp.asarray([0.1, 0.2, 0.3])
        known = Observation(Y[::2], noise=noise).log_likelihood(x[::2])
        value, gradient = jax.value_and_grad(observation.log_likelihood)(x)
        assert jnp.allclose(value, known)
        assert gradient[1] == 0.0
        assert jnp.isfinite(gradient).all()


@pytest.mark.slow
def test_the_local_gaussian_of_other_noise():
    """Weights are roots of the Fisher information, residuals the gradient over them."""
    cases = {
        "poisson": (lambda p: dist.Poisson(p), 1.0 / 2.0, (3.0 - 2.0) / 2.0),
        "laplace": (lambda p: dist.Laplace(p, 0.5), 4.0, 2.0),
        "normal": (lambda p: dist.Normal(p, 0.5), 4.0, 4.0),
    }
    y, prediction = jnp.full(400, 3.0), jnp.full(400, 2.0)
    missing = jnp.arange(400) == 7
    for name, (noise, information, gradient) in cases.items():
        weights, residuals = weights_and_residuals(noise, y, prediction, missing)
        assert jnp.isclose(jnp.mean(weights[8:] ** 2), information, rtol=0.02), name
        assert jnp.allclose((weights * residuals)[8:], gradient, rtol=1e-5), name
        assert weights[7] == 0.0 == residuals[7]
        assert jnp.std(weights[8:]) < 0.12 * jnp.mean(weights[8:])


def test_facts():
    matrix = lx.MatrixLinearOperator(jnp.eye(3))
    assert Observation(Y, noise=0.1).is_linear
    assert Observation(Y, matrix, noise=0.1).is_linear
    assert not Observation(Y, jnp.tanh, noise=0.1).is_linear
    assert Observation(Y, lambda x: 2.0 * x + 1.0, noise=0.1, linear=True, shape=(3,))
    assert Observation(Y, noise=0.0).is_exact
    assert not Observation(Y, noise=0.1).is_exact
    assert Observation(Y, noise=0.1).is_gaussian


def test_a_lineax_operator_of_vectors_takes_images():
    matrix = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    operator = lx.MatrixLinearOperator(jnp.asarray(matrix))
    observation = Observation(Y, operator, noise=0.1)
    image = jnp.arange(4.0).reshape(1, 2, 2)
    assert jnp.allclose(observation.predict(image), matrix @ np.arange(4.0), rtol=1e-5)


class WrongTranspose(lx.FunctionLinearOperator):
    def transpose(self):
        return lx.MatrixLinearOperator(jnp.eye(3))


def lies():
    struct = jax.ShapeDtypeStruct((3,), jnp.float32)
    return WrongTranspose(lambda x: x * jnp.arange(3.0), struct)


REJECTED = {
    "nan": (lambda: Observation([np.nan, 1.0], noise=0.1), r"\(0,\): give missing="),
    "infinite": (
        lambda: Observation([np.inf, 1.0], noise=0.1, missing=True),
        "not finite",
    ),
    "nothing": (lambda: Observation([np.nan], noise=0.1, missing=True), "all entries"),
    "no arrays": (lambda: Observation(None, noise=0.1), "no arrays"),
    "complex": (lambda: Observation(1j * Y, noise=0.1), "real and imaginary"),
    "mask": (
        lambda: Observation(Y, noise=0.1, missing=np.zeros(2, bool)),
        r"shape \(2,\) and y has an array of shape \(3,\)",
    ),
    "integer mask": (
        lambda: Observation(Y, noise=0.1, missing=np.zeros(3, int)),
        "Booleans",
    ),
    "negative": (lambda: Observation(Y, noise=-0.1), "positive and finite"),
    "noise shape": (
        lambda: Observation(Y, noise=np.ones(2)),
        r"\(2,\), which does not broadcast to y of shape \(3,\)",
    ),
    "noise tree": (
        lambda: Observation({"a": Y}, noise={"b": 0.1, "c": 0.1}),
        "a tree of 2 values",
    ),
    "noise size": (
        lambda: Observation({"a": Y, "b": Y}, noise=[0.1, 0.1]),
        "structure of y",
    ),
    "operator shape": (
        lambda: Observation(Y, lambda x: x[:2], noise=0.1, shape=(3,)),
        r"returned an array of shape \(2,\) for x of shape \(3,\), and y is an array "
        r"of shape \(3,\)",
    ),
    "operator later": (
        lambda: Observation(Y, lambda x: x[:2], noise=0.1).predict(jnp.ones(4)),
        r"\(2,\) for x of shape \(4,\)",
    ),
    "lineax shape": (
        lambda: Observation(Y, lx.MatrixLinearOperator(jnp.ones((2, 4))), noise=0.1),
        r"returned an array of shape \(2,\)",
    ),
    "lineax input": (
        lambda: Observation(
            Y, lx.MatrixLinearOperator(jnp.ones((3, 4))), noise=0.1
        ).predict(jnp.ones(5)),
        "an operator with 5 columns",
    ),
    "identity": (
        lambda: Observation(Y, noise=0.1).predict(jnp.ones(4)),
        r"shape \(4,\)",
    ),
    "adjoint": (lambda: Observation(Y, lies(), noise=0.1), "not the adjoint"),
    "not linear": (
        lambda: Observation(Y, jnp.tanh, noise=0.1, linear=True, shape=(3,)),
        "linear=True, but the operator is not",
    ),
    "linear where": (
        lambda: Observation(Y, jnp.tanh, noise=0.1, linear=True),
        "give shape=x.shape",
    ),
    "with_y": (
        lambda: Observation(Y, noise=0.1).with_y(jnp.ones(4)),
        "Measured",
    ),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_wrong_measurement_is_rejected(name):
    make, message = REJECTED[name]
    with pytest.raises(ValueError, match=message):
        make()


def denoiser():
    return Preconditioned(lambda x, c, cond, *, key: x, EDM())


def test_a_wrong_kind_is_rejected():
    with pytest.raises(TypeError, match="MatrixLinearOperator"):
        Observation(Y, jnp.eye(3), noise=0.1)
    with pytest.raises(TypeError, match="numpyro distribution"):
        Observation(Y, noise=lambda p: p).log_likelihood(jnp.ones(3))
    with pytest.raises(ValueError, match="without to_event"):
        Observation(Y, noise=lambda p: dist.Normal(p, 1.0).to_event(1)).log_likelihood(
            jnp.ones(3)
        )
    with pytest.raises(TypeError, match="denoiser"):
        condition(lambda x: x, Observation(Y, noise=0.1))
    with pytest.raises(TypeError, match="observation"):
        condition(denoiser(), Y)
    with pytest.raises(TypeError, match="give a class such as MMPS"):
        condition(denoiser(), Observation(Y, noise=0.1), "mmps")


@pytest.mark.parametrize("method", [MMPS, PiGDM, DPS])
def test_exact_measurements_are_for_methods_that_take_them(method):
    exact = Observation(Y, noise=np.array([0.1, 0.0, 0.1]))
    with pytest.raises(ValueError, match=r"noise is 0 and .* or take Replacement"):
        method(denoiser(), exact)
    assert Replacement(denoiser(), exact)
    with pytest.raises(ValueError, match="requires a linear operator"):
        Replacement(denoiser(), Observation(Y, jnp.tanh, noise=0.1))


def test_settings_are_checked():
    observation = Observation(Y, noise=0.1)
    with pytest.raises(ValueError, match="strength=-1"):
        condition(denoiser(), observation, DPS, strength=-1.0)
    with pytest.raises(ValueError, match="max_steps=0"):
        condition(denoiser(), observation, max_steps=0)


def test_a_measurement_of_all_samples_at_once_is_rejected():
    posterior = MMPS(denoiser(), Observation(Y, noise=0.1))
    with pytest.raises(ValueError, match="leading axis of samples"):
        posterior.denoise(jnp.ones(3), 1.0, Measured(np.ones((2, 3), np.float32)))
