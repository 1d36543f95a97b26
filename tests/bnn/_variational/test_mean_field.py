"""Mean-field VI on linear regression, whose best factorised Gaussian is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import jaxprob
from jaxprob import bnn
from jaxprob.testing import LinearGaussian


@pytest.fixture
def problem(x64, getkey):
    make = jax.jit(lambda key: LinearGaussian.random(key=key, num_data=30, dim=3))
    return make(getkey())


def exact_elbo(problem, posterior):
    """The bound with its expectation in closed form, on the library's own leaves."""
    leaf, bias = posterior.tree.weight, posterior.tree.bias
    mean = jnp.concatenate([leaf.mean.ravel(), bias.mean])
    variance = jnp.concatenate([leaf.scale.ravel(), bias.scale]) ** 2
    design = problem.design(problem.x)
    squares = (problem.y - design @ mean) ** 2 + design**2 @ variance
    noise2 = problem.noise**2
    expected = -0.5 * jnp.sum(squares / noise2 + jnp.log(2 * jnp.pi * noise2))
    return expected - posterior.kl(problem.log_joint().prior)


def moments(posterior):
    leaf, bias = posterior.tree.weight, posterior.tree.bias
    mean = jnp.concatenate([leaf.mean.ravel(), bias.mean])
    return mean, jnp.concatenate([leaf.scale.ravel(), bias.scale]) ** 2


def exact_posterior(problem, model):
    """The best factorised Gaussian, put into the leaves."""
    scale = jnp.sqrt(problem.mean_field_variance)
    dim = problem.x.shape[1]
    return bnn.MeanFieldPosterior(
        eqx.tree_at(
            lambda m: (m.weight, m.bias),
            model,
            (
                bnn.Gaussian.of(problem.mean[None, :dim], scale[None, :dim]),
                bnn.Gaussian.of(problem.mean[dim:], scale[dim:]),
            ),
        )
    )


@pytest.mark.slow
def test_the_exact_bound_is_highest_where_theory_says(problem, getkey):
    posterior = bnn.bayesianize(problem.model(key=getkey()))
    start, unravel = jaxprob.tree.ravel(posterior)
    loss = jax.jit(jax.value_and_grad(lambda v: -exact_elbo(problem, unravel(v))))
    best = scipy.optimize.minimize(
        lambda v: tuple(map(np.asarray, loss(v))), start, jac=True, tol=1e-12
    )
    posterior = unravel(jnp.asarray(best.x))
    mean, variance = moments(posterior)
    assert jnp.allclose(mean, problem.mean, rtol=0.0, atol=1e-6)
    assert jnp.allclose(variance, problem.mean_field_variance, rtol=1e-6)
    assert jnp.allclose(
        exact_elbo(problem, posterior), problem.mean_field_elbo, rtol=0.0, atol=1e-6
    )


@pytest.mark.slow
def test_the_estimated_bound_and_gradient_are_unbiased(problem, getkey):
    posterior = bnn.bayesianize(problem.model(key=getkey()), scale=0.3)
    method = bnn.MeanFieldVI(problem.log_joint(), optax.sgd(1.0))
    batch = (problem.x, problem.y)

    def loss(tree, key):
        return method._loss(tree, batch, key=key)[0]

    def exact(posterior):
        return -exact_elbo(problem, posterior) / 30

    num = 4000
    values, grads = jax.jit(jax.vmap(jax.value_and_grad(loss), (None, 0)))(
        posterior.tree, jax.random.split(getkey(), num)
    )
    value, grad = jax.value_and_grad(exact)(posterior)
    assert abs(values.mean() - value) < 5 * values.std() / np.sqrt(num)
    for estimates, truth in zip(
        jax.tree.leaves(grads), jax.tree.leaves(grad), strict=True
    ):
        error = estimates.std(0) / np.sqrt(num)
        assert jnp.all(jnp.abs(estimates.mean(0) - truth) < 5 * error)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_stochastic_training_reaches_the_optimum(problem, getkey, batch_size):
    """The averaged iterate of SGD with a constant step, in 5 s.e. over 32 runs.

    A scale forgets its start at a rate of 2 / 30 times the learning rate, the bound
    being that of 30 rows: within 750 steps, and 3,000 at the smaller rate.
    """
    rate, half = (0.02, 4000) if batch_size > 1 else (0.005, 16_000)
    method = bnn.MeanFieldVI(
        problem.log_joint(), optax.sgd(rate), num_samples=4, scale=0.15
    )
    start = method.init(problem.model(key=getkey()))
    x, y = problem.x, problem.y

    def step(carry, key):
        state, total = carry
        row_key, key = jax.random.split(key)
        rows = jax.random.randint(row_key, (batch_size,), 0, len(y))
        state, _ = method.update(state, (x[rows], y[rows]), key=key)
        total = jax.tree.map(jnp.add, total, moments(method.posterior(state)))
        return (state, total), None

    def run(key):
        state = start
        for part in jax.random.split(key):
            zero = jax.tree.map(jnp.zeros_like, moments(method.posterior(state)))
            keys = jax.random.split(part, half)
            (state, total), _ = jax.lax.scan(step, (state, zero), keys)
        return jax.tree.map(lambda a: a / half, total)

    runs = 32
    means, variances = jax.jit(jax.vmap(run))(jax.random.split(getkey(), runs))
    error = means.std(0) / np.sqrt(runs)
    assert jnp.all(jnp.abs(means.mean(0) - problem.mean) < 5 * error)
    assert jnp.all(error < 0.05 * jnp.sqrt(problem.mean_field_variance))
    # The gradient of log s is s^2 H - 1, so that s^2 itself has no bias.
    ratio = variances / problem.mean_field_variance[None]
    error = ratio.std(0) / np.sqrt(runs)
    assert jnp.all(jnp.abs(ratio.mean(0) - 1) < 5 * error)
    assert jnp.all(error < 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 30])
def test_gradients_of_all_batches_average_to_the_full_one(problem, getkey, batch_size):
    """Batches of any size, the last one padded, weigh by the rows that count."""
    method = bnn.MeanFieldVI(problem.log_joint(), optax.sgd(1.0), num_samples=3)
    tree = bnn.bayesianize(problem.model(key=getkey())).tree
    key = getkey()

    @eqx.filter_jit
    def gradient(batch):
        return jax.grad(lambda t: method._loss(t, batch, key=key)[0])(tree)

    full = gradient((problem.x, problem.y))
    data = (np.asarray(problem.x), np.asarray(problem.y))
    total = jax.tree.map(jnp.zeros_like, full)
    for batch in jaxprob.ArrayLoader(data, batch_size=batch_size, shuffle=True):
        share = batch.mask.sum() / 30
        total = jax.tree.map(lambda t, g, s=share: t + s * g, total, gradient(batch))
    for a, b in zip(jax.tree.leaves(total), jax.tree.leaves(full), strict=True):
        assert jnp.allclose(a, b, rtol=0.0, atol=1e-10)


def losses(method, tree, batch, key):
    return eqx.filter_jit(lambda: method._loss(tree, batch, key=key))()


@pytest.mark.slow
def test_duplicates_padding_and_order_change_nothing(problem, getkey):
    joint = problem.log_joint()
    method = bnn.MeanFieldVI(joint, optax.sgd(1.0))
    tree = bnn.bayesianize(problem.model(key=getkey())).tree
    x, y = problem.x, problem.y
    key = getkey()
    value, info = losses(method, tree, (x, y), key)
    order = np.random.default_rng(0).permutation(30)
    permuted, _ = losses(method, tree, (x[order], y[order]), key)
    doubled, _ = losses(
        method, tree, (jnp.concatenate([x, x]), jnp.concatenate([y, y])), key
    )
    padded = jaxprob.Batch(
        (
            jnp.concatenate([x, jnp.full((5, 3), 1e3)]),
            jnp.concatenate([y, jnp.full(5, jnp.nan)]),
        ),
        jnp.arange(35) < 30,
    )
    masked, _ = losses(method, tree, padded, key)
    assert jnp.allclose(jnp.stack([permuted, doubled, masked]), value, rtol=1e-12)
    grads = jax.jit(jax.grad(lambda t: method._loss(t, padded, key=key)[0]))(tree)
    assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))
    assert jnp.allclose(info["elbo"], -30 * value)
    assert jnp.allclose(info["elbo"], -30 * info["nll"] - info["kl"])


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.25, 4.0])
def test_a_temperature_scales_the_variance(problem, getkey, temperature):
    """p^(1/T) of a Gaussian has T times its covariance: the optimum moves so."""
    joint = problem.log_joint(temperature=temperature)
    method = bnn.MeanFieldVI(joint, optax.sgd(1.0))
    best = exact_posterior(problem, problem.model(key=getkey()))
    scaled = jax.tree.map(
        lambda g: bnn.Gaussian.of(g.mean, g.scale * np.sqrt(temperature)),
        best.tree,
        is_leaf=bnn.is_random,
    )
    num = 4000

    def gradient(key):
        return jax.grad(lambda t: method._loss(t, (problem.x, problem.y), key=key)[0])(
            scaled
        )

    for g in jax.tree.leaves(
        jax.jit(jax.vmap(gradient))(jax.random.split(getkey(), num))
    ):
        assert jnp.all(jnp.abs(g.mean(0)) < 5 * g.std(0) / np.sqrt(num))


@pytest.mark.slow
def test_points_are_optimised_and_frozen_leaves_are_not(getkey):
    model = eqx.nn.MLP(2, "scalar", 8, 2, key=getkey())
    x = jax.random.normal(getkey(), (16, 2))
    y = jnp.sin(x[:, 0])
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.FanInNormal(), num_data=16)
    method = bnn.MeanFieldVI(
        joint, optax.adam(1e-2), random="layers.2", point="layers.1"
    )
    state = method.init(model)
    step = eqx.filter_jit(lambda s, k: method.update(s, (x, y), key=k)[0])
    for _ in range(3):
        state = step(state, getkey())
    after = method.model(state)
    assert set(bnn.random_leaves(state.model)) == {"layers.2.weight", "layers.2.bias"}
    assert jnp.array_equal(after.layers[0].weight, model.layers[0].weight)
    assert not jnp.array_equal(after.layers[1].weight, model.layers[1].weight)
    assert not jnp.array_equal(after.layers[2].weight, model.layers[2].weight)


@pytest.mark.slow
def test_hidden_layers_differ_at_initialisation(getkey):
    model = eqx.nn.MLP(51, 51, 51, 3, key=getkey())
    drawn = bnn.bayesianize(model).sample(key=getkey())
    noise = [
        (new.weight - old.weight).ravel()
        for new, old in zip(drawn.layers, model.layers, strict=True)
    ]
    both = np.stack([*noise, *(layer.weight.ravel() for layer in model.layers)])
    correlation = np.corrcoef(both)[~np.eye(8, dtype=bool)]
    assert np.abs(correlation).max() < 5 / np.sqrt(both.shape[1])


@pytest.mark.slow
def test_fit_and_predict_match_the_exact_predictive(problem, getkey):
    schedule = optax.cosine_decay_schedule(3e-2, 1500)
    method = bnn.MeanFieldVI(problem.log_joint(), optax.adam(schedule), num_samples=8)
    state, history = jaxprob.fit(
        method,
        problem.model(key=getkey()),
        (np.asarray(problem.x), np.asarray(problem.y)),
        key=getkey(),
        num_steps=1500,
        batch_size=30,
        progress=False,
    )
    assert history[-1]["loss"] < history[0]["loss"]
    predictive = bnn.predict(
        method.posterior(state),
        problem.log_joint().likelihood,
        problem.x,
        key=getkey(),
        num_samples=(num := 4000),
    )
    mean, variance = moments(method.posterior(state))
    # What Adam's last steps leave; the average over steps is tested above.
    assert jnp.all(jnp.abs(mean - problem.mean) < 0.2 * jnp.sqrt(variance))
    design = problem.design(problem.x)
    spread = design**2 @ variance
    error = jnp.sqrt(spread / num)
    assert jnp.all(jnp.abs(predictive.mean - design @ mean) < 5 * error)
    ratio = predictive.epistemic / spread
    assert jnp.all(jnp.abs(ratio - 1) < 5 * np.sqrt(2 / num))
    assert jnp.allclose(predictive.aleatoric, problem.noise**2)
