"""IVON: the published update, line by line, and where it ends."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._inference.run_steps import run_steps
from jaxprob.bnn._variational.ivon_optimizer import distance_from_optimum
from jaxprob.testing import LinearGaussian


class PublishedUpdate:
    """Algorithm 1 of Shen et al. (2024) for one vector, in NumPy, step by step."""

    def __init__(self, m, *, alpha, lam, h0, delta, beta1, beta2):
        self.m, self.h, self.g = m.copy(), np.full_like(m, h0), np.zeros_like(m)
        self.alpha, self.lam, self.delta = alpha, lam, delta
        self.beta1, self.beta2, self.t = beta1, beta2, 0
        self.sigma = 1.0 / np.sqrt(lam * (self.h + delta))

    def step(self, theta, grad):
        self.t += 1
        h_hat = grad * (theta - self.m) / self.sigma**2
        self.g = self.beta1 * self.g + (1 - self.beta1) * grad
        self.h = (
            self.beta2 * self.h
            + (1 - self.beta2) * h_hat
            + 0.5
            * (1 - self.beta2) ** 2
            * (self.h - h_hat) ** 2
            / (self.h + self.delta)
        )
        g_bar = self.g / (1 - self.beta1**self.t)
        self.m = self.m - self.alpha * (g_bar + self.delta * self.m) / (
            self.h + self.delta
        )
        self.sigma = 1.0 / np.sqrt(self.lam * (self.h + self.delta))


@pytest.mark.slow
@pytest.mark.parametrize("rescale", [False, True])
def test_every_step_is_the_published_update(x64, getkey, rescale):
    params = {"a": jax.random.normal(getkey(), (3,)), "b": jnp.array(0.7)}
    settings = {"beta1": 0.8, "beta2": 0.95}
    h0, lam, delta, alpha = 0.6, 40.0, 0.02, 0.1
    optimizer = bnn.ivon(
        alpha,
        lam,
        hess_init=h0,
        weight_decay=delta,
        rescale=rescale,
        trust_radius=np.inf,
        **settings,
    )
    state: Any = optimizer.init(params)
    vector = np.array([*params["a"], params["b"]])
    # The line "optionally" of the algorithm: alpha <- (h0 + delta) alpha.
    rate = alpha * (h0 + delta) if rescale else alpha
    published = PublishedUpdate(
        vector, alpha=rate, lam=lam, h0=h0, delta=delta, **settings
    )

    def loss(p):
        return jnp.sum(jnp.cos(p["a"]) ** 2) + jnp.exp(p["b"]) * p["a"][0]

    ours: Any
    for _ in range(6):
        drawn = bnn.sample_ivon(params, state, key=getkey())
        grads = jax.grad(loss)(drawn)
        updates, state = optimizer.update(grads, state, params, drawn=drawn)
        params = optax.apply_updates(params, updates)
        published.step(
            np.array([*drawn["a"], drawn["b"]]), np.array([*grads["a"], grads["b"]])
        )
        for ours, theirs in (
            (params, published.m),
            (state.hess, published.h),
            (state.momentum, published.g),
            (state.scale, published.sigma),
        ):
            assert np.allclose([*ours["a"], ours["b"]], theirs, rtol=1e-12)


@pytest.mark.slow
def test_draws_have_the_mean_and_scale(getkey):
    optimizer = bnn.ivon(0.1, 10.0, hess_init=2.0, weight_decay=0.5)
    params = jnp.array([1.0, -3.0])
    state = optimizer.init(params)
    num = 20_000
    draws = jax.vmap(lambda k: bnn.sample_ivon(params, state, key=k))(
        jax.random.split(getkey(), num)
    )
    sd = 1 / np.sqrt(10 * 2.5)
    assert np.all(np.abs(draws.mean(0) - params) < 5 * sd / np.sqrt(num))
    assert np.all(np.abs(draws.std(0) / sd - 1) < 5 / np.sqrt(2 * num))


def test_clipping_bounds_each_entry(getkey):
    params = jnp.zeros(2)
    optimizer = bnn.ivon(
        0.5, 1.0, clip_radius=1e-3, beta1=0.0, rescale=False, weight_decay=0.0
    )
    state = optimizer.init(params)
    grads = jnp.array([5.0, -1e-4])
    updates: Any
    updates, _ = optimizer.update(grads, state, params, drawn=params)
    expected = -0.5 * np.array([1e-3, -1e-4 / 0.99999])
    assert np.allclose(updates, expected, rtol=1e-4)


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_fixed_point_is_the_best_factorised_gaussian(problem, getkey, temperature):
    """Draws at m +- sigma_i sqrt(P) e_i have the moments of a Gaussian to the third
    order, which is all that a quadratic loss asks: nothing here is random.
    """
    design, num = problem.design(problem.x), len(problem.y)
    lam = num / temperature
    dim = design.shape[1]
    optimizer = bnn.ivon(
        0.05, lam, beta1=0.5, beta2=0.9, weight_decay=problem.prior_scale**-2 / num
    )
    points = jnp.concatenate([jnp.eye(dim), -jnp.eye(dim)]) * dim**0.5

    def loss(w):
        return 0.5 * jnp.mean((problem.y - design @ w) ** 2) / problem.noise**2

    def step(carry, _):
        params, state = carry
        drawn = params[None] + state.scale[None] * points
        grads = jax.vmap(jax.grad(loss))(drawn)
        updates, state = optimizer.update(grads, state, params, drawn=drawn)
        return (optax.apply_updates(params, updates), state), None

    start = jnp.zeros(dim)
    (mean, state), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=5000))(
        (start, optimizer.init(start))
    )
    assert np.allclose(mean, problem.mean, rtol=0.0, atol=1e-8)
    expected = temperature * problem.mean_field_variance
    assert np.allclose(state.scale**2, expected, rtol=1e-8)
    hessian = np.diag(design.T @ design) / problem.noise**2 / num
    assert np.allclose(state.hess, hessian, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 30])
def test_the_learner_ends_there_too(problem, getkey, batch_size):
    """In epochs, as `fit` trains: drawn anew for each step, batches of 7 would leave
    the mean 0.03 standard deviations off after so many.
    """
    # What is left of the initial curvature is beta2 to this power, 0.25 %.
    num_steps, per_epoch = 60_000, 30 // batch_size
    rate = optax.cosine_decay_schedule(0.05, num_steps)
    method = bnn.IVON(
        problem.log_joint(), rate, hess_init=1.0, beta2=0.9999, num_samples=16
    )
    state = method.init(problem.model(key=getkey()))
    arrays, static = eqx.partition(state, eqx.is_array)

    def step(arrays, key_and_rows):
        key, rows = key_and_rows
        batch = (problem.x[rows], problem.y[rows])
        state, info = method.update(eqx.combine(arrays, static), batch, key=key)
        return eqx.filter(state, eqx.is_array), info["elbo"]

    def epoch(arrays, key):
        row_key, key = jax.random.split(key)
        rows = jax.random.permutation(row_key, 30)[: per_epoch * batch_size]
        keys = jax.random.split(key, per_epoch)
        return jax.lax.scan(step, arrays, (keys, rows.reshape(per_epoch, batch_size)))

    arrays, elbo = jax.jit(lambda a, k: jax.lax.scan(epoch, a, k))(
        arrays, jax.random.split(getkey(), num_steps // per_epoch)
    )
    posterior = method.posterior(eqx.combine(arrays, static))
    leaf, bias = posterior.tree.weight, posterior.tree.bias
    mean = np.concatenate([leaf.mean.ravel(), bias.mean])
    variance = np.concatenate([leaf.scale.ravel(), bias.scale]) ** 2
    sd = np.sqrt(problem.mean_field_variance)
    assert np.all(np.abs(mean - problem.mean) < 0.05 * sd)
    assert np.all(np.abs(variance / problem.mean_field_variance - 1) < 0.03)
    late = np.asarray(elbo).ravel()[-5000:].reshape(50, 100).mean(1)
    error = late.std() / np.sqrt(50)
    assert abs(late.mean() - problem.mean_field_elbo) < 5 * error + 0.02


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.03])
def test_a_loss_steeper_than_hess_init_does_not_diverge(noise):
    """A Newton step for a curvature of 1 where it is 150 or 1500: y = x."""
    x = jnp.linspace(-2, 2, 100)[:, None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(noise), bnn.IsotropicNormal(1.0), 100)
    # Of noise 0.03, half of the seeds are not there after 2,000 steps.
    num = 8000
    rate = optax.cosine_decay_schedule(0.1, num)
    method = bnn.IVON(joint, rate, beta2=0.998)
    model = eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0))
    state = run_steps(
        method, method.init(model), (x, x), key=jax.random.key(1), num=num
    )
    (leaf,) = bnn.random_leaves(method.posterior(state).tree).values()
    precision = float(jnp.sum(x**2)) / noise**2 + 1
    scale = precision**-0.5
    assert abs(leaf.mean.item() - (precision - 1) / precision) < scale
    # The running curvature is a mean of some 1000 terms chi-squared with one degree.
    assert leaf.scale.item() == pytest.approx(scale, rel=5 * (2 / 1000) ** 0.5 / 2)


def steep(num, *, batches=False, key):
    """A posterior of y = x with noise .03 after some steps, from all rows or tens."""
    x = jnp.linspace(-2, 2, 100)[:, None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.03), bnn.IsotropicNormal(1.0), 100)
    rate = optax.cosine_decay_schedule(0.1, num)
    method = bnn.IVON(joint, rate, beta2=0.99)
    state = method.init(eqx.nn.Linear(1, 1, use_bias=False, key=jax.random.key(0)))
    update = eqx.filter_jit(method.update)
    for i in range(num):
        row_key, step_key = jax.random.split(jax.random.fold_in(key, i))
        rows = jax.random.choice(row_key, x, (10,)) if batches else x
        noise = 0.03 * jax.random.normal(row_key, rows.shape) if batches else 0.0
        state, _ = update(state, (rows, rows + noise), key=step_key)
    return method, state


@pytest.mark.slow
def test_a_mean_far_from_its_optimum_is_warned_of(getkey):
    method, state = steep(250, key=getkey())
    weight = method.model(state).weight.item()
    with pytest.warns(UserWarning, match="standard deviations of the posterior from"):
        posterior = method.posterior(state)
    (leaf,) = bnn.random_leaves(posterior.tree).values()
    assert abs(weight - 1.0) / leaf.scale.item() > 3.0


@pytest.mark.slow
def test_the_noise_of_batches_is_no_distance(getkey):
    method, state = steep(3000, batches=True, key=getkey())
    _, kept = distance_from_optimum(state.opt_state[0])
    assert kept < 0.3
    method.posterior(state)  # no warning
    assert abs(method.model(state).weight.item() - 1.0) < 0.03


def test_a_posterior_whose_scales_are_hess_init_is_warned_of(getkey):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.IsotropicNormal(1.0), 100)
    method = bnn.IVON(joint, 0.1)
    state = method.init(eqx.nn.Linear(1, 1, key=getkey()))
    state = eqx.tree_at(lambda s: s.step, state, jnp.asarray(800))
    with pytest.warns(UserWarning, match=r"is 99% hess_init=1.0 .* beta2=0.99375"):
        method.posterior(state)


@pytest.mark.slow
def test_points_have_an_optimiser_of_their_own(getkey):
    model = bnn.LearnedNoise(eqx.nn.Linear(2, "scalar", key=getkey()))
    x = jax.random.normal(getkey(), (16, 2))
    batch = (x, x[:, 0])
    joint = bnn.LogJoint(bnn.HeteroscedasticNormal(), bnn.FanInNormal(), num_data=16)
    with pytest.raises(ValueError, match="raw_scale is a point"):
        bnn.IVON(joint, 0.1).init(model)
    method = bnn.IVON(joint, 0.1, beta2=0.5, point_optimizer=optax.adam(1e-2))
    state = method.init(model)
    state, info = eqx.filter_jit(method.update)(state, batch, key=getkey())
    after = method.model(state)
    assert after.raw_scale != model.raw_scale
    assert not jnp.array_equal(after.model.weight, model.model.weight)
    held_out = method.evaluate(state, batch, key=getkey())
    assert held_out.keys() == info.keys()
    assert np.isfinite(held_out["loss"])
    assert set(bnn.random_leaves(method.posterior(state).tree)) == {
        "model.weight",
        "model.bias",
    }
    frozen = bnn.IVON(joint, 0.1, point=False)
    state, _ = eqx.filter_jit(frozen.update)(frozen.init(model), batch, key=getkey())
    assert state.model.raw_scale == model.raw_scale


@pytest.mark.slow
def test_what_ivon_cannot_do_is_rejected(problem, getkey):
    joint = eqx.tree_at(
        lambda j: j.prior,
        problem.log_joint(),
        dist.Laplace(0.0, 1.0),
        is_leaf=lambda n: isinstance(n, dist.Distribution),
    )
    model = problem.model(key=getkey())
    with pytest.raises(TypeError, match="prior of weight is Laplace"):
        bnn.IVON(joint, 0.1).init(model)
    with pytest.raises(ValueError, match="num_data=0"):
        bnn.ivon(0.1, 0)
    with pytest.raises(ValueError, match="beta2=1"):
        bnn.ivon(0.1, 10, beta2=1.0)
    optimizer = bnn.ivon(0.1, 10)
    params = jnp.zeros(2)
    with pytest.raises(ValueError, match="drawn=drawn"):
        optimizer.update(params, optimizer.init(params), params)
