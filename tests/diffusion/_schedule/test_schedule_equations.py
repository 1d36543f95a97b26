"""A schedule is checked against its own equations before it is used."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxprob.diffusion import DDIM, VP, AbstractSchedule, Preconditioned, sample
from jaxprob.diffusion._schedule.equations import check_equations

from ..cases import SCHEDULES

few = settings(max_examples=6, derandomize=True, deadline=None, database=None)
sizes = st.floats(0.05, 5.0)


class Own(AbstractSchedule):
    """A user's schedule, B(t) = a t + b t^p, and the slips in it."""

    a: float
    b: float
    p: float
    slip: str = ""
    t_min: float = 0.0
    t_max: float = 1.0

    def integral(self, t):
        t = jnp.asarray(t)
        b = 3.0 * (self.a * t + self.b * t**self.p)
        return b + 0.1 if self.slip == "rate" else b

    def alpha(self, t):
        return jnp.exp(-self.integral(t) / 2.0)

    def sigma(self, t):
        return jnp.sqrt(-jnp.expm1(-self.integral(t)))

    def log_snr(self, t):
        b = self.integral(t)
        value = -(b + jnp.log(-jnp.expm1(-b)))
        return value / 2.0 if self.slip == "half" else value

    def time_of_log_snr(self, log_snr):
        log_snr = jnp.asarray(log_snr)
        target = jax.nn.softplus(-2.0 * log_snr if self.slip == "half" else -log_snr)
        low, high = jnp.zeros_like(target), jnp.ones_like(target)
        for _ in range(24):
            middle = (low + high) / 2.0
            below = self.integral(middle) < target
            low, high = jnp.where(below, middle, low), jnp.where(below, high, middle)
        return low**2 if self.slip == "inverse" else low

    def drift(self, t):
        f = -jax.grad(self.integral)(jnp.asarray(t)) / 2.0
        return 2.0 * f if self.slip == "drift" else f

    def squared_diffusion(self, t):
        beta = jax.grad(self.integral)(jnp.asarray(t))
        return jnp.sqrt(beta) if self.slip == "g for its square" else beta


SLIPS = {
    "rate": "must be 1 there",
    "half": "half of the log-SNR",
    "inverse": "not the inverse of log_snr",
    "drift": r"Own.drift\(",
    "g for its square": r"Own.squared_diffusion\(",
}


@pytest.mark.slow
@few
@given(a=sizes, b=sizes, p=st.floats(1.0, 3.0), slip=st.sampled_from(list(SLIPS)))
def test_a_schedule_passes_if_its_equations_hold_and_not_otherwise(a, b, p, slip):
    Own(a, b, p)
    with pytest.raises(ValueError, match=SLIPS[slip]):
        Own(a, b, p, slip)


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS)
def test_each_slip_is_named(slip):
    with pytest.raises(ValueError, match=SLIPS[slip]):
        Own(0.1, 3.0, 2.0, slip)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
def test_our_schedules_pass(name):
    check_equations(SCHEDULES[name]())


@few
@given(a=sizes, b=sizes, p=st.floats(1.0, 3.0), scale=st.floats(0.5, 4.0))
def test_a_rate_is_not_taken_for_its_integral(a, b, p, scale):
    VP(lambda t: a * t + b * t**p, scale)
    VP(lambda t: a * t + b * t**p, scale, t_min=1e-4)

    def rate(t):
        return a + b * p * t ** (p - 1.0)

    for t_min in (0.0, 1e-3):
        with pytest.raises(ValueError, match=r"not the rate(:| itself)"):
            VP(rate, scale, t_min=t_min)


class Levels(AbstractSchedule):
    """Given by its levels alone, x_t = x_0 + s(t) z."""

    level: Any  # a function of time
    t_min: float = 0.0
    t_max: float = 1.0

    def alpha(self, t):
        return jnp.ones_like(jnp.asarray(t, float))

    def sigma(self, t):
        return self.level(jnp.asarray(t))

    def log_snr(self, t):
        return -2.0 * jnp.log(self.sigma(t))

    def time_of_log_snr(self, log_snr):
        times = jnp.linspace(self.t_min, self.t_max, 2**14)
        return jnp.interp(-log_snr / 2.0, jnp.log(jax.vmap(self.level)(times)), times)

    def drift(self, t):
        return jnp.zeros_like(jnp.asarray(t, float))

    def squared_diffusion(self, t):
        return jax.grad(lambda t: self.level(t) ** 2)(jnp.asarray(t))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("level", "message"),
    [
        (lambda t: 0.01 * 5000.0**t, None),
        (lambda t: 50.0 * 5000.0**-t, "must rise with time"),
        (lambda t: 1.0 + t + 0.3 * jnp.sin(20.0 * t), "must rise with time"),
        (lambda t: 1.0 + t, "must be clean"),
        (lambda t: jnp.sqrt(t - 0.02), "must be finite|is NaN"),
        (lambda t: jnp.stack([t, t]), "one number for one time"),
    ],
)
def test_levels_rise_from_the_data(level, message):
    if message is None:
        Levels(level)
        return
    with pytest.raises(ValueError, match=message):
        Levels(level)


def test_functions_that_cannot_be_traced_are_named():
    for int_beta in (np.expm1, lambda t: t if t < 0.5 else 2.0 * t):
        with pytest.raises(TypeError, match="int_beta or its inverse cannot be traced"):
            VP(int_beta, 1.0)
    with pytest.raises(ValueError, match="inverse is not the inverse of int_beta"):
        VP(lambda t: t**2, 1.0, inverse=lambda b: b)


class Rate(eqx.Module):
    slope: jax.Array

    def __call__(self, t):
        return self.slope * t + t**2


def test_a_trained_schedule_is_checked_when_it_is_used():
    schedule = VP(Rate(jnp.asarray(1.0)), 3.0)
    denoiser = Preconditioned(lambda x, c, cond, *, key: x, schedule)
    bad = eqx.tree_at(lambda d: d.schedule.int_beta.slope, denoiser, jnp.asarray(-1.0))
    with pytest.raises(ValueError, match="int_beta must increase"):
        sample(bad, DDIM(2), key=jax.random.key(0), num_samples=1, shape=(1,))
    # In training it is traced, and is not checked.
    value, slope = jax.value_and_grad(lambda a: VP(Rate(a), 3.0).log_snr(1.0))(-0.5)
    assert jnp.isfinite(value)
    assert slope != 0.0
