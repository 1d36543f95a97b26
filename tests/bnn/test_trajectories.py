"""One trajectory is one row: an ODE of the user's as the model, short and long ones."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.datasets import pad_trajectories
from jaxprob.testing import LinearGaussian

TIMES = np.linspace(0.0, 2.0, 9, dtype=np.float32)


class Line(eqx.Module):
    """A trajectory with an exact posterior: y(t) = w t + b at all times of a row."""

    line: eqx.nn.Linear

    def __call__(self, times):
        return jax.vmap(self.line)(times[:, None])


class Decay(eqx.Module):
    """dy/dt = -k y, by a solver."""

    rate: jax.Array
    start: jax.Array

    def __call__(self, times):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda t, y, rate: -rate * y),
            dfx.Tsit5(),
            times[0],
            times[-1],
            0.1,
            self.start[None],
            args=self.rate,
            saveat=dfx.SaveAt(ts=times),
            stepsize_controller=dfx.PIDController(rtol=1e-6, atol=1e-6),
            max_steps=64,
        )
        return solution.ys


@pytest.fixture
def problem(getkey):
    y = TIMES + 0.5 * jax.random.normal(getkey(), TIMES.shape)
    return LinearGaussian(jnp.asarray(TIMES[:, None]), jnp.asarray(y))


@pytest.fixture
def scene(problem, getkey):
    """Model, one row, and its log joint."""
    model = Line(eqx.nn.Linear(1, "scalar", key=getkey()))
    row = (jnp.asarray(TIMES[None]), problem.y[None])
    prior = bnn.IsotropicNormal(problem.prior_scale)
    return model, row, bnn.LogJoint(bnn.NormalLikelihood(problem.noise), prior, 1)


def test_one_trajectory_has_the_density_of_all_its_times(problem, scene):
    model, row, joint = scene
    times = problem.log_joint()(model.line, (problem.x, problem.y))
    assert np.allclose(joint(model, row), times, rtol=1e-6)


METHODS = {
    "map": lambda joint: bnn.MAP(joint, optax.adam(1e-2)),
    "mean-field": lambda joint: bnn.MeanFieldVI(joint, optax.adam(1e-2)),
    "swag": lambda joint: bnn.SWAG(
        bnn.MAP(joint, optax.sgd(1e-3)), num_warmup=1, thin=1, rank=2
    ),
    "sgld": lambda joint: bnn.SGLD(joint, 1e-3, num_warmup=1, num_draws=2, thin=1),
    "nuts": lambda joint: bnn.NUTS(joint, num_warmup=20, num_draws=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_one_row(name, scene, getkey):
    model, row, joint = scene
    method = METHODS[name](joint)
    state, _ = jaxprob.fit(method, model, row, key=getkey(), num_steps=24, batch_size=1)
    posterior = method.posterior(state)
    predictive = bnn.predict(posterior, joint.likelihood, row[0], key=getkey())
    assert predictive.mean.shape == (1, len(TIMES))


@pytest.mark.slow
def test_laplace_of_one_row_is_the_exact_posterior(problem, scene, getkey):
    model, row, joint = scene
    method = bnn.Laplace(bnn.MAP(joint, optax.adam(0.05)), "full")
    state, _ = jaxprob.fit(method, model, row, key=getkey(), num_steps=600)
    posterior = method.posterior(state, [row])
    mean = jaxprob.tree.ravel(posterior.mean())[0]
    assert np.allclose(mean, problem.mean, atol=1e-3)
    assert np.allclose(posterior.log_evidence(), problem.log_evidence, atol=1e-2)


@pytest.mark.slow
def test_padding_leaves_density_and_gradient_as_they_are():
    long = np.exp(-TIMES)[:, None]
    parts = [(TIMES, long), (TIMES[:4], long[:4] + 0.1), (TIMES[2:3], long[:1])]
    x, y = pad_trajectories(parts)
    model = Decay(jnp.asarray(0.7), jnp.asarray(1.2))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), dist.Normal(), num_data=3)
    value, slope = eqx.filter_value_and_grad(joint)(model, (x, y))
    prior = joint.log_prior(model)
    alone = 0.0
    for times, values in parts:
        states = 1.2 * np.exp(-0.7 * (times - times[0]))[:, None]
        alone += np.sum(dist.Normal(states, 0.1).log_prob(values))
    assert np.allclose(value - prior, alone, rtol=1e-4)

    def by_hand(rate):
        return sum(
            jnp.sum(
                dist.Normal(1.2 * jnp.exp(-rate * (t - t[0])), 0.1).log_prob(v[:, 0])
            )
            for t, v in parts
        )

    expected = jax.grad(by_hand)(jnp.asarray(0.7)) - 0.7
    assert np.allclose(slope.rate, expected, rtol=1e-3)


def test_padded_trajectories():
    long = np.array([[0.0], [np.nan], [2.0]])
    times, (values, observed) = pad_trajectories(
        [(np.arange(3.0), long), ([5.0], [[7.0]])]
    )
    assert times.dtype == values.dtype == np.float64
    assert np.array_equal(times, [[0, 1, 2], [5, 5, 5]])
    assert np.array_equal(observed[..., 0], [[True, False, True], [True, False, False]])
    assert np.array_equal(values[..., 0], [[0, 0, 2], [7, 0, 0]])


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([1.0, 0.5], [0.0, 0.0]), "trajectory 1 goes back in time: 0.5 follows 1.0"),
        (([1.0], [0.0, 0.0]), "trajectory 1 has 1 times and 2 values"),
        (([], []), "trajectory 1 has times of shape"),
        (([np.nan], [1.0]), "trajectory 1 has times that are not finite or values"),
        (([1.0], [np.inf]), "write NaN for a value that is missing"),
        (([1.0], [[0.0]]), r"trajectory 1 has values of shape \(1,\)"),
    ],
)
def test_wrong_trajectories_are_named(pair, message):
    with pytest.raises(ValueError, match=message):
        pad_trajectories([([0.0], [0.0]), pair])


def test_a_key_is_needed_only_for_noise(scene):
    model, row, joint = scene
    noisy = bnn.LogJoint(
        joint.likelihood,
        joint.prior,
        1,
        apply=lambda m, x, *, key: eqx.nn.Dropout(0.5)(m(x), key=key),
    )
    with pytest.raises(RuntimeError, match="requires a key"):
        noisy(model, row)
