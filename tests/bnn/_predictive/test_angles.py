"""Means and variances of angles."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from scipy.special import ive

from jaxprob import bnn, metrics
from jaxprob.bnn._joint.expected_information import information_root
from jaxprob.bnn._joint.information_roots import mean_length_slope


def at(*angles):
    """Vectors in these directions, of different lengths."""
    angles = jnp.asarray(angles)
    lengths = 1.0 + jnp.arange(angles.size, dtype=angles.dtype).reshape(angles.shape)
    return lengths[..., None] * jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)


def test_the_mean_does_not_jump_at_pi():
    outputs = at([3.1, -3.1], [0.2, 0.4])  # rows, samples
    predictive = bnn.Predictive(outputs, bnn.VonMisesLikelihood(50.0))
    mean = predictive.mean
    np.testing.assert_allclose(jnp.abs(mean[0]), jnp.pi, rtol=1e-5)
    np.testing.assert_allclose(mean[1], 0.3, rtol=1e-5)


def test_variances_are_scipys_of_draws(x64):
    concentration = 3.0
    outputs = at([0.1, 0.9, 1.2])
    predictive = bnn.Predictive(outputs, bnn.VonMisesLikelihood(concentration))
    length = ive(1, concentration) / ive(0, concentration)
    directions = np.exp(1j * np.array([0.1, 0.9, 1.2]))
    total = -2 * np.log(abs(length * directions.mean()))
    np.testing.assert_allclose(predictive.variance, [total])
    np.testing.assert_allclose(predictive.aleatoric, [-2 * np.log(length)])
    np.testing.assert_allclose(predictive.mean, [np.angle(directions.mean())])
    keys = jax.random.split(jax.random.key(0), 20_000)
    draws = eqx.filter_jit(jax.vmap(lambda k: predictive.sample(key=k)))(keys)[:, 0]
    std = scipy.stats.circstd(np.asarray(draws))
    np.testing.assert_allclose(predictive.std, [std], rtol=0.03)


def test_one_model_has_no_epistemic_variance():
    predictive = bnn.Predictive(at([0.4]), bnn.VonMisesLikelihood(2.0))
    np.testing.assert_allclose(predictive.epistemic, [0.0], atol=1e-6)


@pytest.mark.parametrize("concentration", [1e-3, 0.5, 5.0, 19.9, 20.1, 300.0])
def test_the_slope_of_the_mean_length_is_that_of_scipy(concentration, x64):
    def exact(k):
        return ive(1, k) / ive(0, k)

    step = 1e-4 * concentration
    slope = (exact(concentration + step) - exact(concentration - step)) / (2 * step)
    found = mean_length_slope(jnp.asarray(concentration))
    np.testing.assert_allclose(found, slope, rtol=1e-5)


def test_errors_go_the_short_way_round():
    y, mean = np.array([3.1, 0.0]), np.array([-3.1, 0.5])
    found = metrics.angular_error(y, mean, per_example=True)
    np.testing.assert_allclose(found, [2 * np.pi - 6.2, 0.5], rtol=1e-5)


LIKELIHOODS = {
    "known concentration": bnn.VonMisesLikelihood(2.5),
    "concentration of the model": lambda f: dist.VonMises(f[0], jnp.exp(1.0 + f[1])),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_information_is_the_mean_squared_score(name, x64):
    """By a sum over a fine grid of angles."""
    output = jnp.array([0.3, -0.8])
    likelihood = LIKELIHOODS[name]
    grid = jnp.linspace(-jnp.pi, jnp.pi, 401)[:-1]

    def log_prob(output, y):
        return likelihood(output).log_prob(y)

    scores = jax.vmap(jax.grad(log_prob), (None, 0))(output, grid)
    weights = jnp.exp(jax.vmap(log_prob, (None, 0))(output, grid))
    weights = weights * 2 * jnp.pi / 400
    expected = jnp.einsum("n,ni,nj->ij", weights, scores, scores)
    root = information_root(likelihood, lambda flat: flat, output)
    assert root is not None
    np.testing.assert_allclose(root.T @ root, expected, rtol=1e-8, atol=1e-12)


def test_wrong_outputs_and_targets_are_rejected():
    with pytest.raises(ValueError, match="a vector in the plane is needed"):
        bnn.VonMisesLikelihood(1.0)(jnp.zeros(3))
    net = eqx.nn.Linear(1, 2, key=jax.random.key(0))
    x = np.ones((3, 1), np.float32)
    with pytest.raises(ValueError, match=r"y row 1 is .*the support of VonMises"):
        bnn.check_data(
            x,
            np.array([0.0, 7.0, 1.0], np.float32),
            likelihood=bnn.VonMisesLikelihood(1.0),
            model=net,
        )


def test_a_users_angle_has_a_circular_mean():
    assert bnn.Family().resultant is None
    predictive = bnn.Predictive(
        jnp.array([[3.0, -3.0]]), lambda angle: dist.VonMises(angle, 9.0)
    )
    np.testing.assert_allclose(jnp.abs(predictive.mean), [jnp.pi], rtol=1e-5)
