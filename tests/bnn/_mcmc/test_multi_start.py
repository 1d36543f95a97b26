"""Chains of a model with many local modes: a warning, and a start at the best."""

from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._mcmc.multi_start import at_modes
from jaxprob.testing import LinearGaussian

from ...unhooked import unhooked

TIMES = np.linspace(0.0, 6.0, 40, dtype=np.float32)
NOISE = 0.3


class Wave(eqx.Module):
    """One frequency of a trajectory: each wrong one leaves a local mode."""

    frequency: jax.Array

    def __call__(self, times):
        return jnp.sin(self.frequency * times)


@pytest.fixture(scope="module")
def scene():
    model = Wave(jnp.asarray(5.0))
    noise = NOISE * jax.random.normal(jax.random.key(2), TIMES.shape)
    row = TIMES[None], (model(TIMES) + noise)[None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(NOISE), dist.Normal(4.0, 3.0), 1)
    return Wave(jnp.asarray(1.0)), row, joint


def exact(joint, row):
    """Mean and standard deviation by quadrature."""
    grid = np.linspace(-12.0, 20.0, 40_001, dtype=np.float32)
    values = jax.vmap(lambda f: joint(Wave(f), row))(grid)
    weights = np.exp(np.asarray(values, np.float64) - float(values.max()))
    weights /= weights.sum()
    mean = np.sum(weights * grid)
    return mean, np.sqrt(np.sum(weights * (grid - mean) ** 2))


def run(method, model, row):
    return bnn.run_chains(method, model, row, key=jax.random.key(0), progress=False)


@pytest.mark.slow
def test_chains_in_local_modes_are_warned_of(scene):
    model, row, joint = scene
    method = bnn.NUTS(joint, num_warmup=200, num_draws=100)
    with pytest.warns(UserWarning, match=r"not mixed: R-hat of the .* initial='map'"):
        posterior = run(method, model, row)
    assert bnn.rhat(posterior.draws.frequency) > 1.5


@pytest.mark.slow
@pytest.mark.parametrize("initial", ["map", bnn.MultiStart(40, num_steps=200)])
def test_chains_that_start_at_the_best_modes_are_right(scene, initial):
    model, row, joint = scene
    method = bnn.NUTS(joint, num_warmup=200, num_draws=300, initial=initial)
    frequency = np.asarray(run(method, model, row).draws.frequency)
    mean, sd = exact(joint, row)
    assert bnn.rhat(frequency) < 1.05
    error = sd / np.sqrt(bnn.ess(frequency))
    assert abs(frequency.mean() - mean) < 5 * error
    assert np.isclose(frequency.std(), sd, rtol=0.15)


@pytest.mark.slow
def test_a_search_ends_at_the_mode_of_a_gaussian(getkey):
    """Adam with a rate that falls; the chains start there and nowhere else."""
    problem = LinearGaussian.random(key=getkey(), num_data=30, dim=2)
    model, data = problem.model(key=getkey()), (problem.x, problem.y)
    method = bnn.NUTS(problem.log_joint(), num_chains=3)
    position = at_modes(bnn.MultiStart(6), method, model, data, key=getkey())
    assert position.shape == (3, 3)
    sd = np.sqrt(np.diag(problem.covariance))
    assert np.all(np.abs(np.asarray(position) - np.asarray(problem.mean)) < 0.1 * sd)


def test_a_loop_without_data_cannot_search(scene, getkey):
    model, row, joint = scene
    method = bnn.NUTS(joint, initial="map")
    with pytest.raises(ValueError, match="it needs the data: run_chains"):
        jaxprob.fit(method, model, row, key=getkey(), num_steps=1)
    wrong: Any = "mode"
    with unhooked(), pytest.raises(ValueError, match="'prior', 'model', 'map'"):
        bnn.NUTS(joint, initial=wrong)


def test_nothing_to_climb_is_an_error(scene):
    model, row, joint = scene
    broken = bnn.LogJoint(
        lambda out: dist.Normal(out, jnp.sqrt(-1.0 - out**2)), joint.prior, 1
    )
    with pytest.raises(ValueError, match="none of 32 draws from the prior has"):
        at_modes(bnn.MultiStart(), bnn.NUTS(broken), model, row, key=jax.random.key(0))


class Decay(eqx.Module):
    """dy/dt = -k y, by a solver that is differentiated forwards alone."""

    log_rate: jax.Array

    def __call__(self, times):
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda t, y, rate: -rate * y),
            dfx.Heun(),
            0.0,
            times[-1],
            0.05,
            jnp.ones(1),
            args=jnp.exp(self.log_rate),
            saveat=dfx.SaveAt(ts=times),
            adjoint=dfx.ForwardMode(),
            max_steps=200,
        )
        assert solution.ys is not None
        return solution.ys[:, 0]


@pytest.mark.slow
def test_forward_mode_has_the_gradient_of_reverse_mode(scene, getkey):
    problem = LinearGaussian.random(key=getkey(), num_data=30, dim=2)
    model, data = problem.model(key=getkey()), (problem.x, problem.y)
    vector = jnp.arange(3.0)

    def slope(forward_mode):
        method = bnn.HMC(problem.log_joint(), forward_mode=forward_mode)
        return jax.value_and_grad(lambda v: method.log_density(model, v, data))(vector)

    value, gradient = slope(True)
    assert np.allclose(value, slope(False)[0])
    assert np.allclose(gradient, slope(False)[1], rtol=1e-5)
    # Reverse mode raises for this model.
    times, truth, rate = jnp.linspace(0.0, 2.0, 5), jnp.exp(-0.5), 0.8
    row = times[None], (truth**times)[None]
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), dist.Normal(0.0, 1.0), 1)
    method = bnn.NUTS(joint, forward_mode=True)

    def density(log_rate, solved=True):
        if solved:
            decay = Decay(jnp.asarray(0.0))
            return method.log_density(decay, log_rate[None], row)
        states = jnp.exp(-jnp.exp(log_rate) * times)
        noise = jnp.sum(dist.Normal(states, 0.1).log_prob(row[1][0]))
        return noise + dist.Normal().log_prob(log_rate)

    log_rate = jnp.log(rate)
    solved, exact = (jax.grad(density)(log_rate, way) for way in (True, False))
    assert np.allclose(solved, exact, rtol=5e-3)
