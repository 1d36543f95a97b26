"""What a posterior holds beside weights comes back from its file as it was."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn


class Gridded(eqx.Module):
    """A constant and a weight as NumPy makes them."""

    grid: np.ndarray
    gain: np.ndarray
    linear: eqx.nn.Linear

    def __init__(self):
        self.grid = np.arange(3)
        self.gain = np.array([0.5, 1.5])
        self.linear = eqx.nn.Linear(3, 2, key=jax.random.key(0))

    def __call__(self, x):
        return self.gain.astype(np.float32) * self.linear(x + self.grid)


def again(posterior, model, tmp_path) -> Any:
    path = tmp_path / "posterior.safetensors"
    bnn.save_posterior(path, posterior)
    return bnn.load_posterior(path, model=model)


def test_a_model_of_numpy_arrays(tmp_path):
    """In single precision a state holds float32 where NumPy has float64."""
    model = Gridded()
    found = again(bnn.PointPosterior(model), model, tmp_path)
    assert np.array_equal(found.model.gain, model.gain)
    assert np.array_equal(found.model.grid, model.grid)
    single = jax.tree.map(jnp.asarray, model)
    assert np.array_equal(
        again(bnn.PointPosterior(single), model, tmp_path).model.gain, model.gain
    )


def test_numpy_numbers_in_a_prior(tmp_path):
    model = eqx.nn.Linear(2, 1, key=jax.random.key(0))
    prior = dist.Normal(np.float64(0.0), np.float64(0.7))
    found = again(bnn.PriorModels(model, prior), model, tmp_path)
    assert np.allclose(found.log_prob(model), bnn.log_prior(prior, model))


@pytest.mark.slow
def test_a_number_still_takes_on_the_dtype_it_meets(tmp_path):
    """A strong float32 would promote outputs of half precision, or be refused."""
    model = eqx.nn.Linear(2, "scalar", key=jax.random.key(0), dtype=jnp.bfloat16)
    likelihood = bnn.NormalLikelihood(0.3)
    joint = bnn.LogJoint(likelihood, bnn.IsotropicNormal(0.7), 4)
    method = bnn.Laplace(bnn.MAP(joint, optax.sgd(0.1)), "diagonal")
    x = jax.random.normal(jax.random.key(1), (4, 2), jnp.bfloat16)
    posterior = method.posterior(method.init(model), [(x, x[:, 0])])
    found = again(posterior, model, tmp_path)
    assert found.prior.scale.weak_type
    assert np.array_equal(found.tau(), posterior.tau())
    assert found.likelihood(model(x[0])).log_prob(x[0, 0]).dtype == jnp.bfloat16


PRIORS = {
    "bounded": dist.Uniform(-2.0, 2.0),
    "truncated": dist.TruncatedNormal(0.0, 1.0, low=-3.0, high=3.0),
    "transformed": dist.TransformedDistribution(
        dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(0.0, 2.0)
    ),
    "expanded": dist.Laplace(0.0, 1.0).expand([2]),
    "of an event": dist.Normal(jnp.zeros(2), 1.0).to_event(1),
    "mixed": dist.MixtureGeneral(
        dist.Categorical(probs=jnp.array([0.25, 0.75])),
        [dist.Normal(0.0, 1.0), dist.StudentT(3.0, 0.0, 1.0)],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRIORS)
def test_priors_of_every_make(name, tmp_path):
    model = eqx.nn.Linear(2, 3, use_bias=False, key=jax.random.key(0))
    posterior = bnn.PriorModels(model, PRIORS[name])
    found = again(posterior, model, tmp_path)
    assert np.array_equal(found.log_prob(model), posterior.log_prob(model))
    key = jax.random.key(2)
    assert eqx.tree_equal(found.sample(key=key), posterior.sample(key=key))
    assert found.prior.support == posterior.prior.support
