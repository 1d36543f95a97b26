"""Noise levels that a user gives, and the coordinate that goes with them."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    AbstractGrid,
    Cosine,
    CustomGrid,
    LogLevelGrid,
    ODESampler,
    Preconditioned,
    decode,
    encode,
    log_prob,
    sample,
)
from tests.unhooked import unhooked

from ..cases import SCHEDULES

KEY = jax.random.key(0)
SHORT = VP(lambda t: t, 1.0)  # ends at level 1.31


def model(schedule=None):
    """The exact denoiser of standard normal data: the network gives 0."""
    schedule = EDM() if schedule is None else schedule
    return Preconditioned(lambda x, c, cond, *, key: 0.0 * x, schedule)


def steps(levels, schedule=None, x=None):
    x = jnp.ones(2) if x is None else x
    return DDIM(2).steps(model(schedule), x, levels)


def flow(level_from, level_to, schedule=None):
    x = jnp.ones(2)
    return ODESampler(4).flow(model(schedule), x, level_from, level_to)


class Rising(AbstractGrid):
    def between(self, level_max, level_min, *, schedule, shape):
        return np.linspace(level_min, level_max, self.num_steps + 1)


def draw(sampler, schedule=None):
    return sample(model(schedule), sampler, key=KEY, num_samples=2, shape=(2,))


WRONG = {
    "rising": (lambda: steps([0.1, 1.0, 5.0]), r"levels\[0\] = 0.1.*levels\[::-1\]"),
    "repeated": (lambda: steps([5.0, 1.0, 1.0]), r"levels\[1\] = 1 and levels\[2\]"),
    "negative": (lambda: steps([5.0, 1.0, -1.0]), r"levels\[2\] = -1: a noise"),
    "zero first": (lambda: steps([0.0, -1.0]), r"levels\[1\] = -1"),
    "NaN": (lambda: steps([5.0, np.nan, 1.0]), r"levels\[1\] = nan"),
    "infinite": (lambda: steps([np.inf, 1.0]), r"levels\[0\] = inf"),
    "one level": (lambda: steps([1.0]), "two or more levels"),
    "a table": (lambda: steps(np.ones((2, 2))), "in one axis"),
    "beyond the end": (lambda: steps([80.0, 1.0], SHORT), r"levels\[0\] = 80, but VP"),
    "below the start": (lambda: steps([5.0, 1e-4]), r"levels\[1\] = 0.0001, but EDM"),
    "traced": (lambda: jax.jit(steps)(jnp.array([2.0, 1.0])), "traced by jit or vmap"),
    "grid of NaN": (lambda: CustomGrid([5.0, np.nan]), r"levels\[1\] = nan"),
    "grid of zeros": (lambda: CustomGrid([5.0, 0.0]), "two or more levels above 0"),
    "own grid": (lambda: draw(DDIM(Rising(3))), "Rising's levels must fall"),
    "flow from 80": (lambda: flow(80.0, 0.1, SHORT), "level_from = 80, but VP"),
    "flow to 0": (lambda: flow(1.0, 0.0), "level_to = 0.*in infinite time"),
    "flow to less": (lambda: flow(1.0, -1.0), "level_to = -1: give a positive"),
    "flow up too far": (lambda: flow(0.1, 80.0, SHORT), "level_to = 80, but VP"),
    "flow traced": (lambda: jax.jit(flow)(1.0, 0.1), "level_from is being traced"),
    "start below stop": (
        lambda: draw(DDIM(LogLevelGrid(2, level_max=1e-3))),
        "must be above",
    ),
    "stop below 0": (
        lambda: draw(DDIM(LogLevelGrid(2, level_min=-1.0))),
        "level_min=-1.0: give",
    ),
    "start at NaN": (
        lambda: draw(DDIM(LogLevelGrid(2, level_max=np.nan))),
        "level_max=nan must",
    ),
    "encode": (
        lambda: encode(
            model(), jnp.ones(2), sampler=ODESampler(LogLevelGrid(2, level_min=-1.0))
        ),
        "level_min=-1.0: give",
    ),
    "decode": (
        lambda: decode(
            model(), jnp.ones(2), sampler=ODESampler(LogLevelGrid(2, level_max=1e-3))
        ),
        "level_max=0.001 must be above",
    ),
    "density": (lambda: log_prob(model(), jnp.ones(2), level_max=0.0), "must be above"),
}


@pytest.mark.parametrize("name", WRONG)
def test_levels_that_cannot_be_are_named(name):
    call, message = WRONG[name]
    with unhooked(), pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.slow
def test_a_last_level_of_zero_is_the_denoiser():
    denoiser, x = model(), jnp.array([3.0, -1.0])
    short, longer, only = eqx.filter_jit(
        lambda: (
            steps([5.0, 1.0, 0.5], x=x),
            steps([5.0, 1.0, 0.5, 0.0], x=x),
            steps([5.0, 0.0], x=x),
        )
    )()
    assert jnp.allclose(longer, denoiser(short, 0.5))
    assert jnp.allclose(only, denoiser(x, 5.0))
    assert CustomGrid([5.0, 1.0, 0.5, 0.0]).values == (5.0, 1.0, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_coordinates_go_over_into_each_other(name):
    schedule = SCHEDULES[name]()
    x_0, z, t = jnp.ones(3), jnp.array([-1.0, 0.5, 2.0]), 0.3 * schedule.t_max
    x_t = schedule.perturb(x_0, t, z)
    x = schedule.unscaled(x_t, t)
    assert jnp.allclose(x, x_0 + schedule.level(t) * z, rtol=1e-5)
    assert jnp.allclose(schedule.scaled(x, t), x_t, rtol=1e-6)


def test_a_point_in_the_other_coordinate_is_seen():
    schedule = Cosine()
    t = schedule.time_of_level(5.0)
    x_0, z = jax.random.normal(KEY, (2, 400))
    x_t = schedule.perturb(x_0, t, z)
    with pytest.warns(UserWarning, match=r"write schedule.unscaled\(x_t, t\)"):
        steps([5.0, 1.0], schedule, x_t)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        steps([5.0, 1.0], schedule, schedule.unscaled(x_t, t))
