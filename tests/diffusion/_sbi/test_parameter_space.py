"""Parameters and their coordinates: supports, Jacobians, round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob.diffusion import ParameterSpace

PRIORS = {
    "box": lambda: dist.Uniform(-2.0 * jnp.ones(2), 3.0),
    "event": lambda: dist.Uniform(jnp.zeros(2), 1.0).to_event(1),
    "positive": lambda: dist.LogNormal(0.0, 1.0),
    "beta": lambda: dist.Beta(2.0, 3.0),
    "real": lambda: dist.MultivariateNormal(jnp.ones(2), jnp.eye(2)),
    "simplex": lambda: dist.Dirichlet(jnp.ones(3)),
}


@pytest.fixture
def double():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", PRIORS)
def test_coordinates_go_there_and_back(double, name):
    space = ParameterSpace(PRIORS[name]())
    theta = space.sample(key=jax.random.key(0), num_samples=200)
    again = space.from_vectors(space.to_vectors(theta))
    np.testing.assert_allclose(again, theta, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in PRIORS if name != "simplex"])
def test_the_log_volume_is_that_of_the_jacobian(double, name):
    space = ParameterSpace(PRIORS[name]())
    u = jax.random.normal(jax.random.key(1), (5, space.size), jnp.float64)

    def value(u):
        return space.from_vectors(u[None]).reshape(-1)

    exact = jnp.linalg.slogdet(jax.vmap(jax.jacobian(value))(u))[1]
    np.testing.assert_allclose(space.log_volume(u), exact, rtol=1e-9)


@pytest.mark.parametrize("name", PRIORS)
def test_no_coordinates_lie_outside(name):
    space = ParameterSpace({"a": PRIORS[name](), "b": dist.Normal(0.0, 1.0)})
    far = jnp.linspace(-40.0, 40.0, 81, dtype=jnp.float32)
    u = jnp.broadcast_to(far[:, None], (81, space.size))
    assert space.contains(space.from_vectors(u)).all()


def test_a_uniform_prior_has_standard_normal_coordinates(double):
    space = ParameterSpace(dist.Uniform(2.0, 5.0))
    u = jnp.linspace(-3.0, 3.0, 7)[:, None]
    found = space.log_prob(space.from_vectors(u)) + space.log_volume(u)
    np.testing.assert_allclose(
        found, dist.Normal(0.0, 1.0).log_prob(u[:, 0]), rtol=1e-9
    )


def test_the_prior_is_the_product_and_minus_infinity_outside():
    space = ParameterSpace({"a": dist.Uniform(0.0, 2.0), "b": dist.Normal(0.0, 1.0)})
    found = space.log_prob({"a": np.array([1.0, 3.0]), "b": np.array([0.5, 0.5])})
    exact = -np.log(2.0) + float(dist.Normal(0.0, 1.0).log_prob(0.5))
    np.testing.assert_allclose(found, [exact, -np.inf], rtol=1e-6)


def test_parts_keep_their_places():
    space = ParameterSpace(
        {"a": dist.Normal(0.0, 1.0), "b": dist.Normal(jnp.zeros(2), 1.0)}
    )
    theta = {"a": np.array([1.0, 2.0]), "b": np.array([[3.0, 4.0], [5.0, 6.0]])}
    np.testing.assert_array_equal(space.to_vectors(theta), [[1, 3, 4], [2, 5, 6]])


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        (dist.Poisson(3.0), "is discrete"),
        ({"a": 3.0}, "has a float where"),
        ({}, "no distribution"),
        (dist.ImproperUniform(dist.constraints.real, (), ()), "cannot be sampled"),
    ],
)
def test_a_prior_that_cannot_be_used_is_rejected(prior, message):
    with pytest.raises(TypeError, match=message):
        ParameterSpace(prior)


def test_parameters_of_another_shape_are_rejected():
    space = ParameterSpace({"a": dist.Normal(jnp.zeros(2), 1.0)})
    with pytest.raises(ValueError, match="leading axis"):
        space.to_vectors({"a": np.zeros(2)})
    with pytest.raises(ValueError, match="structure"):
        space.to_vectors({"b": np.zeros((3, 2))})
