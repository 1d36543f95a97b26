"""Known noise of each row, and the noise of each output by the evidence."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.optimize

from jaxprob import bnn
from jaxprob.testing import LinearGaussian


class Known(eqx.Module):
    """Linear regression with a noise scale for each row, in closed form."""

    x: jax.Array
    y: jax.Array
    scale: jax.Array

    @property
    def design(self):
        return jnp.concatenate([self.x, jnp.ones((len(self.x), 1))], 1)

    @property
    def covariance(self):
        scaled = self.design / self.scale[:, None]
        return jnp.linalg.inv(jnp.eye(scaled.shape[1]) + scaled.T @ scaled)

    @property
    def mean(self):
        return self.covariance @ self.design.T @ (self.y / self.scale**2)

    @property
    def log_evidence(self):
        covariance = jnp.diag(self.scale**2) + self.design @ self.design.T
        return dist.MultivariateNormal(jnp.zeros(len(self.y)), covariance).log_prob(
            self.y
        )


def known(key):
    problem = LinearGaussian.random(key=key, num_data=12, dim=2)
    return Known(problem.x, problem.y, jnp.linspace(0.1, 2.0, 12))


def at_mode(problem):
    net = eqx.nn.Linear(2, "scalar", dtype=float, key=jax.random.key(0))
    parts = problem.mean[None, :2], problem.mean[2:]
    return bnn.KnownNoise(eqx.tree_at(lambda m: (m.weight, m.bias), net, parts))


def joint():
    likelihood = bnn.KnownNoiseLikelihood()
    return bnn.LogJoint(likelihood, dist.Normal(0.0, 1.0), num_data=12)


@pytest.mark.slow
def test_the_posterior_with_row_noise_is_exact(getkey, x64):
    problem = known(getkey())
    method = bnn.Laplace(bnn.MAP(joint(), optax.sgd(0.1)))
    model, inputs = at_mode(problem), (problem.x, problem.scale)
    slope = method.method.gradient(
        method.init(model), (inputs, problem.y), key=getkey()
    )
    assert all(np.allclose(g, 0.0, atol=1e-10) for g in jax.tree.leaves(slope))
    posterior = method.posterior(method.init(model), [(inputs, problem.y)])
    exact = problem.log_evidence
    np.testing.assert_allclose(posterior.log_evidence(), exact, rtol=1e-8)
    predictive = bnn.predict(
        posterior, joint().likelihood, inputs, key=getkey(), num_samples=4000
    )
    design, covariance = problem.design, problem.covariance
    spread = jnp.einsum("ni,ij,nj->n", design, covariance, design)
    np.testing.assert_allclose(predictive.aleatoric, problem.scale**2, rtol=1e-6)
    np.testing.assert_allclose(predictive.epistemic, spread, rtol=0.15)
    np.testing.assert_allclose(predictive.mean, design @ problem.mean, atol=0.1)


@pytest.mark.slow
def test_anchored_members_have_the_noise_of_their_rows(getkey, x64):
    problem = known(getkey())
    method = bnn.AnchoredMAP(joint(), optax.sgd(1.0))
    model = at_mode(problem)
    data = (problem.x, problem.scale), problem.y

    def optimum(key):
        slope = method.gradient(method.init(model, key=key), data, key=key)
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(slope)])
        return problem.mean - problem.covariance @ (12 * flat)

    draws = eqx.filter_jit(jax.vmap(optimum))(jax.random.split(getkey(), 5000))
    np.testing.assert_allclose(
        jnp.cov(draws.T), problem.covariance, rtol=0.15, atol=0.004
    )


def test_wrong_row_noise_is_rejected():
    model = bnn.KnownNoise(eqx.nn.Linear(2, 2, key=jax.random.key(0)))
    with pytest.raises(ValueError, match=r"its x is the pair \(inputs, scale\)"):
        model(jnp.ones(2))
    with pytest.raises(ValueError, match=r"has shape \(1,\) and the mean \(2,\)"):
        model((jnp.ones(2), jnp.ones(1)))
    with pytest.raises(ValueError, match="wrap the model in KnownNoise"):
        bnn.KnownNoiseLikelihood()(jnp.ones(2))
    _, scale = model((jnp.ones(2), jnp.asarray(0.3)))
    np.testing.assert_allclose(scale, [0.3, 0.3])


@pytest.mark.slow
def test_the_noise_of_each_output_is_at_the_maximum_of_the_evidence(getkey, x64):
    first = LinearGaussian.random(
        key=getkey(), num_data=25, dim=2, noise=0.2, bias=False
    )
    second = LinearGaussian.random(
        key=getkey(), num_data=25, dim=2, noise=1.5, bias=False
    )
    x, y = first.x, jnp.stack([first.y, second.y], 1)
    keep = np.arange(25) % 5 > 0  # the second output is missing in every fifth row

    def evidence(logs):
        noise, scale = jnp.exp(logs[:2]), jnp.exp(logs[2])
        total = 0.0
        for index, rows in enumerate((np.ones(25, bool), keep)):
            covariance = scale**2 * x[rows] @ x[rows].T
            covariance += noise[index] ** 2 * jnp.eye(rows.sum())
            p = dist.MultivariateNormal(jnp.zeros(rows.sum()), covariance)
            total = total + p.log_prob(y[rows, index])
        return total

    best = scipy.optimize.minimize(
        jax.jit(lambda logs: -evidence(logs)),
        np.zeros(3),
        jac=jax.jit(jax.grad(lambda logs: -evidence(logs))),
        tol=1e-12,
    )
    joint = bnn.LogJoint(
        bnn.NormalLikelihood(jnp.array([1.0, 1.0])),
        bnn.IsotropicNormal(1.0),
        num_data=25,
    )
    model = eqx.nn.Linear(2, 2, use_bias=False, dtype=float, key=getkey())
    observed = np.stack([np.ones(25, bool), keep], 1)
    posterior, history = bnn.train_by_evidence(
        bnn.Laplace(bnn.MAP(joint, optax.adam(3e-2))),
        model,
        (x, (y, observed)),
        key=getkey(),
        noise=True,
        num_rounds=10,
        num_steps=300,
    )
    assert isinstance(posterior.likelihood, bnn.NormalLikelihood)
    assert isinstance(posterior.prior, bnn.IsotropicNormal)
    found = jnp.log(jnp.append(posterior.likelihood.scale, posterior.prior.scale))
    np.testing.assert_allclose(found, best.x, atol=2e-3)
    np.testing.assert_allclose(history[-1], -best.fun, atol=1e-4)
    with pytest.raises(
        ValueError, match=r"write train_by_evidence\(\.\.\., noise=True"
    ):
        bnn.tune_prior(posterior, noise=True)
