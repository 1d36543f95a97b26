"""SWAG against its definition, and against the stationary distribution of SGD."""

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


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=12, dim=2))
    return make(getkey())


def run(method, problem, num, key, batch_size=4):
    """Trains on random minibatches; the state and every iterate."""
    state = method.init(problem.model(key=key))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key):
        rows = jax.random.randint(key, (batch_size,), 0, 12)
        batch = (problem.x[rows], problem.y[rows])
        state, _ = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), problem.vector(state.train.model)

    arrays, path = jax.jit(lambda a, k: jax.lax.scan(step, a, k))(
        arrays, jax.random.split(key, num)
    )
    return eqx.combine(arrays, static), np.asarray(path)


@pytest.mark.slow
@pytest.mark.parametrize("num", [37, 120])
def test_moments_are_those_of_the_recorded_path(problem, getkey, num):
    """With fewer and with more iterates than the ring holds."""
    method = bnn.SWAG(
        bnn.MAP(problem.log_joint(), optax.sgd(0.1)), num_warmup=20, thin=3, rank=8
    )
    state, path = run(method, problem, num, getkey())
    seen = path[22::3]
    assert int(state.count) == len(seen)
    posterior = method.posterior(state)
    assert isinstance(posterior, bnn.SWAGPosterior)
    assert np.allclose(
        problem.vector(posterior.mean()), seen.mean(0), rtol=0.0, atol=1e-10
    )
    assert np.allclose(posterior.variance, seen.var(0), rtol=0.0, atol=1e-10)
    running = np.cumsum(seen, 0) / np.arange(1, len(seen) + 1)[:, None]
    last = (seen - running)[-8:]
    rank = len(last)
    covariance = 0.5 * (np.diag(seen.var(0)) + last.T @ last / (rank - 1))
    draw = posterior.sample(key=getkey())
    exact = dist.MultivariateNormal(jnp.asarray(seen.mean(0)), jnp.asarray(covariance))
    assert np.allclose(
        posterior.log_prob(draw),
        exact.log_prob(problem.vector(draw)),
        rtol=0.0,
        atol=1e-8,
    )
    draws = jax.jit(jax.vmap(lambda k: problem.vector(posterior.sample(key=k))))(
        jax.random.split(getkey(), 20_000)
    )
    sd = np.sqrt(np.diag(covariance))
    centred = (np.asarray(draws) - seen.mean(0)) / sd
    correlation = covariance / np.outer(sd, sd)
    error = np.sqrt((1 + correlation**2) / 20_000)
    assert np.all(np.abs(centred.T @ centred / 20_000 - correlation) < 5 * error)


@pytest.mark.slow
def test_the_diagonal_is_half_the_stationary_variance_of_sgd(problem, getkey):
    """The exact second moment of SGD with replacement on a quadratic.

    delta' = F delta + noise, where F varies with the batch: M = E[F M F'] + eta^2 G.
    """
    eta, batch_size = 0.05, 4
    method = bnn.SWAG(
        bnn.MAP(problem.log_joint(), optax.sgd(eta)), num_warmup=500, thin=1, rank=0
    )
    state, path = run(method, problem, 60_000, getkey(), batch_size)
    posterior = method.posterior(state)
    assert isinstance(posterior, bnn.SWAGPosterior)
    design = np.asarray(problem.design(problem.x))
    noise2, prior2, rows = problem.noise**2, problem.prior_scale**2, 12
    mode = np.asarray(problem.mean)
    # Of the loss -log p / N: each row's Hessian and its gradient at the mode.
    hessians = np.einsum("ni,nj->nij", design, design) / noise2
    hessians = hessians + np.eye(3) / prior2 / rows
    residuals = design @ mode - np.asarray(problem.y)
    gradients = residuals[:, None] * design / noise2 + mode / prior2 / rows
    mean_hessian = hessians.mean(0)
    covariance = np.einsum("ni,nj->ij", gradients, gradients) / rows / batch_size
    moment = np.zeros((3, 3))
    for _ in range(5000):
        spread = np.einsum("nij,jk,nlk->il", hessians, moment, hessians) / rows
        plain = np.eye(3) - eta * mean_hessian
        extra = (spread - mean_hessian @ moment @ mean_hessian) / batch_size
        moment = plain @ moment @ plain + eta**2 * (extra + covariance)
        # Cross terms of a row's Hessian with its gradient act on the mean, which is 0.
    squares = (path[None, 500:] - mode) ** 2
    error = squares.std((0, 1)) / np.sqrt(bnn.ess(squares))
    assert np.all(np.abs(posterior.variance - np.diag(moment)) < 5 * error)
    assert np.all(error < 0.04 * np.diag(moment))
    drawn = jax.vmap(lambda k: problem.vector(posterior.sample(key=k)))(
        jax.random.split(getkey(), 4000)
    )
    ratio = np.asarray(drawn).var(0) / (0.5 * np.asarray(posterior.variance))
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / 4000))


@pytest.mark.slow
def test_multi_swag_is_an_ensemble_of_them(problem, getkey):
    method = bnn.SWAG(
        bnn.MAP(problem.log_joint(), optax.sgd(0.1)), num_warmup=2, thin=1, rank=4
    )
    data = (np.asarray(problem.x), np.asarray(problem.y))
    ensemble = bnn.DeepEnsemble(method, 2)
    state, _ = jaxprob.fit(
        ensemble,
        problem.model(key=getkey()),
        data,
        key=getkey(),
        num_steps=12,
        batch_size=4,
        progress=False,
    )
    posterior = ensemble.posterior(state)
    each = [method.posterior(ensemble.member(state, i)) for i in range(2)]
    second = posterior.member(1)
    assert isinstance(second, bnn.SWAGPosterior)
    assert isinstance(each[1], bnn.SWAGPosterior)
    assert np.allclose(second.variance, each[1].variance)
    assert isinstance(bnn.Mixture(each).sample(key=getkey()), eqx.nn.Linear)


@pytest.mark.slow
def test_a_density_over_part_of_a_model(x64, getkey):
    model = eqx.nn.MLP(2, 1, 3, 1, key=getkey())
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.5), bnn.FanInNormal(), num_data=6)
    part = bnn.MAP(joint, optax.sgd(0.1), random="layers.0", point=False)
    method = bnn.SWAG(part, num_warmup=0, thin=1, rank=3)
    state = method.init(model)
    x = jax.random.normal(getkey(), (6, 2))
    for _ in range(5):
        key = getkey()
        state, _ = eqx.filter_jit(method.update)(state, (x, x[:, :1]), key=key)
    posterior = method.posterior(state)
    assert isinstance(posterior, bnn.SWAGPosterior)
    draw = posterior.sample(key=getkey())
    assert np.array_equal(draw.layers[1].weight, model.layers[1].weight)
    vector, mean = (
        np.asarray(jaxprob.tree.ravel(m, "layers.0")[0])
        for m in (draw, posterior.mean())
    )
    last = np.asarray(posterior.deviations)
    covariance = 0.5 * (np.diag(posterior.variance) + last.T @ last / 2)
    exact = dist.MultivariateNormal(jnp.asarray(mean), jnp.asarray(covariance))
    assert np.allclose(posterior.log_prob(draw), exact.log_prob(jnp.asarray(vector)))


@pytest.mark.slow
def test_too_few_iterates_are_rejected(problem, getkey):
    method = bnn.SWAG(
        bnn.MAP(problem.log_joint(), optax.sgd(0.1)), num_warmup=20, thin=5
    )
    state, _ = run(method, problem, 24, getkey())
    with pytest.raises(ValueError, match=r"collected 0 iterate.*ended at step 24"):
        method.posterior(state)
    with pytest.raises(ValueError, match="rank=1"):
        bnn.SWAG(method.method, num_warmup=1, thin=1, rank=1)
