"""The recursive update is Bayes' rule on conjugate data, in any order and batch."""

import itertools
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from jaxprob import bnn
from jaxprob.bnn._laplace.kalman_step import kalman_step

KEY = jax.random.key(2)
NOISE = 0.3
SPLITS = [(0, 24), (0, 1, 2, 9, 24), (0, 5, 10, 15, 20, 24)]


def features(model, x):
    """Inputs of the last layer, by NumPy, with the ones of its bias."""
    first = model.layers[0]
    hidden = np.tanh(
        np.asarray(x) @ np.asarray(first.weight).T + np.asarray(first.bias)
    )
    return np.concatenate([hidden, np.ones((len(x), 1))], axis=1)


@pytest.fixture
def scene(x64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 2))
    y = np.sin(x[:, :1]) + NOISE * rng.normal(size=(24, 1))
    model = eqx.nn.MLP(2, 1, 5, 1, activation=jnp.tanh, key=KEY, dtype=jnp.float64)
    prior = bnn.PriorByPath(
        {
            "layers.1.weight": dist.Normal(0.2, 0.7),
            "layers.1.bias": dist.Normal(-0.1, 2.0),
        }
    )
    return model, x, y, bnn.LogJoint(bnn.NormalLikelihood(NOISE), prior, 24)


def exact(model, x, y, weight=None):
    """Mean and precision of the last layer, in closed form."""
    design = features(model, x)
    tau = np.array([0.7] * 5 + [2.0]) ** -2
    centre = np.array([0.2] * 5 + [-0.1])
    weight = np.ones(len(x)) if weight is None else weight
    precision = np.diag(tau) + design.T @ (weight[:, None] * design) / NOISE**2
    right = tau * centre + design.T @ (weight * y[:, 0]) / NOISE**2
    return np.linalg.solve(precision, right), precision


def vector(posterior):
    last = posterior.mean().layers[1]
    return np.concatenate([np.ravel(last.weight), last.bias])


def close(a, b):
    return np.allclose(a, b, rtol=0.0, atol=1e-8)


def test_any_order_and_any_batches_give_the_batch_posterior(scene):
    model, x, y, joint = scene
    mean, precision = exact(model, x, y)
    start = bnn.KalmanPosterior.from_prior(model, joint, where="layers.1")
    for ends, order in zip(
        SPLITS,
        (np.arange(24), np.arange(24)[::-1], np.roll(np.arange(24), 7)),
        strict=True,
    ):
        posterior = start
        for i, j in itertools.pairwise(ends):
            rows = order[i:j]
            posterior = posterior.update(x[rows], y[rows])
        assert close(vector(posterior), mean)
        assert close(posterior.precision, precision)
    x_new = x[:3] + 1.0
    design = features(model, x_new)
    outputs, spread = posterior.output_distribution(x_new)
    assert close(outputs, design @ mean[:, None])
    expected = design @ np.linalg.solve(precision, design.T)
    assert close(spread[:, 0, 0], np.diag(expected))
    joint_spread = posterior.joint_output_distribution(x_new)[1]
    assert close(joint_spread[:, 0, :, 0], expected)
    assert close(posterior.mean().layers[0].weight, model.layers[0].weight)


def test_weights_count_rows_and_further_iterations_change_nothing(scene):
    model, x, y, joint = scene
    weight = np.array([2.0, 0.0, 1.0, 0.5, 3.0])
    start = bnn.KalmanPosterior.from_prior(model, joint, where="layers.1")
    mean, precision = exact(model, x[:5], y[:5], weight)
    posterior = start.update(x[:5], y[:5], weight, num_iterations=3)
    assert close(vector(posterior), mean)
    assert close(posterior.precision, precision)


def test_it_goes_on_from_a_laplace_approximation(scene):
    """And is the prior of a next method: densities agree with the batch posterior."""
    model, x, y, joint = scene
    first = bnn.KalmanPosterior.from_prior(model, joint, where="layers.1")
    first = first.update(x[:10], y[:10])
    method = bnn.Laplace(
        bnn.MAP(
            eqx.tree_at(lambda j: j.likelihood, joint, joint.likelihood),
            optax.sgd(0.1),
            random="layers.1",
            point=False,
        ),
        where="layers.1",
    )
    small = bnn.LogJoint(joint.likelihood, joint.prior, 10)
    method = eqx.tree_at(lambda m: m.method.log_joint, method, small)
    laplace = method.posterior(method.init(first.mean()), [(x[:10], y[:10])])
    posterior = bnn.KalmanPosterior.from_posterior(laplace).update(x[10:], y[10:])
    mean, precision = exact(model, x, y)
    assert close(vector(posterior), mean)
    assert close(posterior.precision, precision)
    there = first.mean()
    delta = vector(first) - mean
    _, log_det = np.linalg.slogdet(precision)
    density = 0.5 * (log_det - 6 * np.log(2 * np.pi) - delta @ precision @ delta)
    assert close(posterior.log_prob(there), density)
    assert close(
        posterior.as_prior().log_prob(eqx.filter(there, _last(there))), density
    )


def _last(model):
    flags = jax.tree.map(lambda leaf: False, model)
    return eqx.tree_at(
        lambda m: (m.layers[1].weight, m.layers[1].bias), flags, (True, True)
    )


def test_logistic_regression_takes_the_step_of_newton(x64):
    """One update from the prior: g = y - p, H = p (1 - p), by NumPy."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(12, 2))
    y = (x[:, 0] + 0.3 * rng.normal(size=12) > 0).astype(np.int32)
    model = eqx.nn.Linear(2, "scalar", use_bias=False, key=KEY, dtype=jnp.float64)
    centre = jnp.array([[0.4, -0.3]])
    prior = bnn.GaussianPrior(
        eqx.tree_at(lambda m: m.weight, model, centre), jnp.eye(2)
    )
    joint = bnn.LogJoint(bnn.BernoulliLikelihood(), prior, 12)
    start = bnn.KalmanPosterior.from_prior(model, joint)
    mean, prior_mean = np.array([0.4, -0.3]), np.array([0.4, -0.3])
    for _ in range(4):
        p = 1.0 / (1.0 + np.exp(-x @ mean))
        precision = np.eye(2) + x.T @ ((p * (1 - p))[:, None] * x)
        step = x.T @ (y - p) - (mean - prior_mean)
        mean = mean + np.linalg.solve(precision, step)
    found = start.update(x, y, num_iterations=4)
    assert close(np.ravel(found.mean().weight), mean)
    assert close(found.precision, precision)


def online(width=32):
    model = eqx.nn.MLP(8, 1, width, 2, key=KEY)
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), 1)
    return bnn.KalmanPosterior.from_prior(model, joint, where="layers.2")


def test_an_update_compiles_once_for_sizes_up_to_a_power_of_two():
    posterior, rng = online(8), np.random.default_rng(0)
    x = rng.normal(size=(8, 8)).astype(np.float32)
    y = x[:, :1]
    posterior = posterior.update(x, y)
    before = kalman_step._cached._cache_size()
    for rows in (5, 6, 7, 8):
        posterior = posterior.update(x[:rows], y[:rows])
    assert kalman_step._cached._cache_size() == before


def test_predictions_and_files(tmp_path):
    posterior, rng = online(8), np.random.default_rng(0)
    x = rng.normal(size=(8, 8)).astype(np.float32)
    posterior = posterior.update(x, x[:, :1])
    path = tmp_path / "online.safetensors"
    bnn.save_posterior(path, posterior)
    loaded = bnn.load_posterior(path)
    assert isinstance(loaded, bnn.KalmanPosterior)
    found = loaded.update(x, x[:, :1])
    again = posterior.update(x, x[:, :1])
    assert np.array_equal(found.precision, again.precision)
    predictive = bnn.predict(found, found.likelihood, x, key=KEY, num_samples=2000)
    outputs, spread = found.output_distribution(x)
    assert np.allclose(predictive.mean, outputs, atol=0.05)
    assert np.allclose(predictive.epistemic, spread[:, :, 0], rtol=0.2)


def test_wrong_arguments_are_named():
    model = eqx.nn.Linear(2, 1, key=KEY)
    likelihood = bnn.NormalLikelihood(0.3)
    joint = bnn.LogJoint(likelihood, bnn.FanInNormal(), 1)
    posterior = bnn.KalmanPosterior.from_prior(model, joint)
    x, y = np.zeros((3, 2), np.float32), np.zeros((3, 1), np.float32)
    with pytest.raises(ValueError, match=r"x holds 2 non-finite.*row 1, column 0"):
        posterior.update(np.where(np.arange(3)[:, None] == 1, np.nan, x), y)
    with pytest.raises(ValueError, match="x has 3 rows and y has 2"):
        posterior.update(x, y[:2])
    with pytest.raises(ValueError, match=r"y has.*shape"):
        posterior.update(x, y[:, 0])
    with pytest.raises(ValueError, match="num_iterations=0"):
        posterior.update(x, y, num_iterations=0)
    with pytest.raises(FloatingPointError, match="not finite after these rows"):
        posterior.update(x + 1e30, y)
    laplace = bnn.LogJoint(likelihood, dist.Laplace(0.0, 1.0), 1)
    with pytest.raises(TypeError, match="the prior of weight is Laplace"):
        bnn.KalmanPosterior.from_prior(model, laplace)
    cold = bnn.LogJoint(likelihood, bnn.FanInNormal(), 1, temperature=0.5)
    with pytest.raises(ValueError, match=r"temperature=0\.5"):
        bnn.KalmanPosterior.from_prior(model, cold)
    field = bnn.bayesianize(model)
    with pytest.raises(ValueError, match="likelihood=None: a MeanFieldPosterior"):
        bnn.KalmanPosterior.from_posterior(field)


@pytest.mark.slow
def test_an_update_takes_less_than_five_milliseconds():
    posterior, rng = online(), np.random.default_rng(0)
    x = rng.normal(size=(16, 8)).astype(np.float32)
    y = x[:, :1]
    posterior = posterior.update(x, y)
    seconds = []
    for _ in range(50):
        start = time.process_time()
        posterior = posterior.update(x, y)
        jax.block_until_ready(posterior.precision)
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 0.005
