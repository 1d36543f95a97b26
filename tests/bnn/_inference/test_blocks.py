"""Blocks: a linear head on fixed features has a posterior in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.testing import LinearGaussian

NOISE, ROWS = 0.4, 14


class Net(eqx.Module):
    body: eqx.nn.Linear
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(jnp.tanh(self.body(x)))


@pytest.fixture
def scene(x64):
    """A network whose head stands at its posterior mean given the body."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (ROWS, 2))
    y = jnp.sin(2.0 * x[:, 0]) + NOISE * jax.random.normal(keys[1], (ROWS,))
    net = Net(
        eqx.nn.Linear(2, 3, key=keys[2], dtype=x.dtype),
        eqx.nn.Linear(3, "scalar", key=keys[3], dtype=x.dtype),
    )
    features = jnp.tanh(jax.vmap(net.body)(x))
    problem = LinearGaussian(features, y, NOISE, 1.0)
    best = problem.mean
    net = eqx.tree_at(
        lambda n: (n.head.weight, n.head.bias), net, (best[None, :3], best[3:])
    )
    joint = bnn.LogJoint(bnn.NormalLikelihood(NOISE), dist.Normal(0.0, 1.0), ROWS)
    return net, joint, problem, (x, y)


def posterior(net, joint, blocks, data, **settings):
    method = bnn.Blocks(bnn.MAP(joint, optax.sgd(0.0)), blocks, **settings)
    state = method.init(net, key=jax.random.key(1))
    x, y = data
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    return method.posterior(state, batches, key=jax.random.key(2))


def head(model):
    return jnp.concatenate([model.head.weight[0], model.head.bias])


@pytest.mark.slow
def test_a_laplace_head_is_the_exact_posterior(scene):
    net, joint, problem, data = scene
    still = bnn.MAP(joint, optax.sgd(0.0))
    found = posterior(net, joint, {"head": bnn.Laplace(still)}, data)
    draw = found.sample(key=jax.random.key(3))
    exact = dist.MultivariateNormal(problem.mean, problem.covariance)
    assert np.allclose(
        found.log_prob(draw), exact.log_prob(head(draw)), rtol=0.0, atol=1e-8
    )
    assert np.allclose(head(found.mean()), problem.mean, rtol=0.0, atol=1e-10)
    assert np.array_equal(draw.body.weight, net.body.weight)
    assert found.linearized


@pytest.mark.slow
def test_a_head_by_nuts_has_the_exact_moments(scene):
    net, joint, problem, data = scene
    chains = bnn.NUTS(joint, num_warmup=200, num_draws=1000)
    found = posterior(net, joint, {"head": chains}, data)
    assert isinstance(found, bnn.BlocksPosterior)
    part = found.parts[0]
    assert isinstance(part, bnn.DrawsPosterior)
    draws = np.concatenate([part.draws.head.weight[:, :, 0], part.draws.head.bias], -1)
    covariance = np.asarray(problem.covariance)
    sd = np.sqrt(np.diag(covariance))
    centred = (draws - np.asarray(problem.mean)) / sd
    assert np.all(np.abs(centred.mean((0, 1))) < 5 / np.sqrt(bnn.ess(centred)))
    products = centred[..., :, None] * centred[..., None, :]
    error = products.std((0, 1)) / np.sqrt(bnn.ess(products))
    correlation = covariance / np.outer(sd, sd)
    assert np.all(np.abs(products.mean((0, 1)) - correlation) < 5 * error)
    assert np.array_equal(found.mean().body.weight, net.body.weight)


@pytest.mark.slow
def test_two_blocks_are_independent_and_conditional_on_each_other(scene):
    """A variational bias beside a Laplace weight: each given the other's mean."""
    net, joint, problem, data = scene
    blocks = {
        "head.bias": bnn.MeanFieldVI(joint, optax.adam(2e-2), stick_the_landing=True),
        "head.weight": bnn.Laplace(bnn.MAP(joint, optax.sgd(0.0))),
    }
    found = posterior(net, joint, blocks, data, num_steps=3000)
    draws = jax.jit(jax.vmap(lambda k: head(found.sample(key=k))))(
        jax.random.split(jax.random.key(5), 20_000)
    )
    draws = np.asarray(draws)
    precision = np.asarray(problem.precision)
    exact = np.zeros((4, 4))
    exact[:3, :3] = np.linalg.inv(precision[:3, :3])
    exact[3, 3] = 1 / precision[3, 3]
    sd = np.sqrt(np.diag(exact))
    correlation = exact / np.outer(sd, sd)
    estimate = np.cov(draws.T) / np.outer(sd, sd)
    error = np.sqrt((1 + correlation**2) / 20_000)
    error[3, 3] += 0.02  # where the optimiser of the bias ended
    assert np.all(np.abs(estimate - correlation) < 5 * error)


@pytest.mark.slow
def test_what_is_no_block_is_refused(scene):
    net, joint, _, _ = scene
    still = bnn.MAP(joint, optax.sgd(0.0))
    laplace = bnn.Laplace(still)
    both = bnn.Blocks(still, {"head": laplace, "head.bias": laplace})
    with pytest.raises(
        ValueError, match=r"'head' and 'head\.bias' both mean head\.bias"
    ):
        both.init(net, key=jax.random.key(0))
    with pytest.raises(TypeError, match="DeepEnsemble cannot be a block"):
        bnn.Blocks(still, {"head": bnn.DeepEnsemble(still, 2)})
    method = bnn.Blocks(still, {"head": laplace})
    state = method.init(net, key=jax.random.key(0))
    with pytest.raises(ValueError, match="give the training data and a key"):
        method.posterior(state)
    with pytest.raises(ValueError, match="blocks is empty"):
        bnn.Blocks(still, {})
