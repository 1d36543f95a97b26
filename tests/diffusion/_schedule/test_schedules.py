"""Every schedule: its moments, its inverse, its ends."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob.diffusion import (
    EDM,
    VE,
    VP,
    AbstractSchedule,
    Cosine,
    CustomSchedule,
    RectifiedFlow,
    Shifted,
)
from jaxprob.diffusion._schedule.inverse import inverse_integral
from tests.unhooked import unhooked

from ..cases import SCHEDULES, like, times

schedules = pytest.mark.parametrize("name", SCHEDULES)


def moment_residuals(schedule, t):
    """What is left of d alpha/dt = f alpha and d sigma^2/dt = 2 f sigma^2 + g^2."""
    alpha, alpha_dot = jax.value_and_grad(schedule.alpha)(t)
    variance, variance_dot = jax.value_and_grad(lambda t: schedule.sigma(t) ** 2)(t)
    f, g2 = schedule.drift(t), schedule.squared_diffusion(t)
    first = (alpha_dot - f * alpha) / (1.0 + jnp.abs(alpha_dot))
    second = (variance_dot - 2.0 * f * variance - g2) / (1.0 + jnp.abs(g2))
    return first, second


@pytest.mark.slow
@schedules
def test_moments_satisfy_their_odes(name, x64):
    schedule = SCHEDULES[name]()
    first, second = jax.vmap(lambda t: moment_residuals(schedule, t))(times(schedule))
    assert jnp.max(jnp.abs(first)) < 1e-10
    assert jnp.max(jnp.abs(second)) < 1e-10


@pytest.mark.slow
@schedules
def test_moments_satisfy_their_odes_in_float32(name):
    schedule = SCHEDULES[name]()
    first, second = jax.vmap(lambda t: moment_residuals(schedule, t))(times(schedule))
    assert jnp.max(jnp.abs(first)) < 1e-4
    assert jnp.max(jnp.abs(second)) < 1e-4


@schedules
def test_dots_are_derivatives(name, x64):
    schedule = SCHEDULES[name]()
    t = times(schedule)
    for function, dot in (
        (schedule.alpha, schedule.alpha_dot),
        (schedule.sigma, schedule.sigma_dot),
    ):
        expected = jax.vmap(jax.grad(function))(t)
        assert jnp.allclose(jax.vmap(dot)(t), expected, rtol=1e-10, atol=1e-12)


@schedules
def test_log_snr_is_that_of_alpha_and_sigma_and_falls(name, x64):
    schedule = SCHEDULES[name]()
    t = times(schedule)
    log_snr = jax.vmap(schedule.log_snr)(t)
    alpha, sigma = jax.vmap(schedule.alpha)(t), jax.vmap(schedule.sigma)(t)
    expected = 2.0 * (jnp.log(alpha) - jnp.log(sigma))
    assert jnp.allclose(log_snr, expected, rtol=1e-9, atol=1e-9)
    assert jnp.all(jnp.diff(log_snr) < 0)


@pytest.mark.slow
@schedules
@pytest.mark.parametrize("double", [True, False])
def test_inverse_in_log_snr_is_exact(name, double):
    with jax.enable_x64(double):
        schedule = SCHEDULES[name]()
        t = times(schedule)
        back = jax.vmap(lambda t: schedule.time_of_log_snr(schedule.log_snr(t)))(t)
        # Log-SNR itself is rounded: 1e-7 of its size (about 10) moves t by as much.
        assert back.dtype == t.dtype
        assert jnp.allclose(back, t, rtol=1e-11 if double else 2e-5)


@schedules
def test_inverse_at_the_ends_and_beyond(name):
    schedule = SCHEDULES[name]()
    assert schedule.time_of_log_snr(jnp.inf) == schedule.t_min
    assert schedule.time_of_log_snr(-jnp.inf) == schedule.t_max


@schedules
def test_float32_keeps_its_digits_near_the_data(name):
    """1 - exp(-B) would be wrong by 100 percent at the smallest of these times."""
    schedule = SCHEDULES[name]()
    small = [t for t in (1e-3, 1e-5, 1e-7, 1e-9) if t >= schedule.t_min] or [0.003]
    single = [schedule.sigma(jnp.float32(t)) for t in small]
    with jax.enable_x64(True):
        # The same float32 times, so that only the arithmetic differs.
        double = [SCHEDULES[name]().sigma(float(np.float32(t))) for t in small]
        np.testing.assert_allclose(single, double, rtol=1e-6)


@schedules
def test_ends(name):
    schedule = SCHEDULES[name]()
    assert jnp.allclose(schedule.alpha(schedule.t_min), 1.0)
    assert schedule.level(schedule.t_min) <= 0.002
    assert schedule.level(schedule.t_max) > 20.0
    assert jnp.isfinite(schedule.sigma(schedule.t_max))
    assert schedule.alpha(schedule.t_max) >= 0.0


@pytest.mark.slow
def test_inverse_of_a_numerical_rate_is_differentiable(x64):
    schedule = VP(lambda t: t + jnp.log1p(t), t_max=8.0)
    t = jnp.asarray(1.3)
    slope = jax.grad(schedule.time_of_log_snr)(schedule.log_snr(t))
    assert jnp.allclose(slope * jax.grad(schedule.log_snr)(t), 1.0, rtol=1e-10)


def test_a_trainable_rate_has_gradients(x64):
    def time(scale):
        schedule = VP(lambda t: scale * t, t_max=10.0)
        return schedule.time_of_log_snr(jnp.asarray(-1.0))

    # B = softplus(1) is fixed and t = B / scale.
    b = jax.nn.softplus(jnp.asarray(1.0))
    assert jnp.allclose(jax.grad(time)(2.0), -b / 4.0, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP(lambda t: 1.0 - t, t_max=1.0), "must increase"),
        (lambda: VP(lambda t: t - 0.5, t_max=1.0), "cannot be negative"),
        (lambda: VP(lambda t: jnp.log(t), t_max=1.0), "not finite"),
        (lambda: VP(lambda t: t, t_max=-1.0), "t_min < t_max"),
        (lambda: VP.linear(2.0, 1.0), "beta_min <= beta_max"),
        (lambda: VE(1.0, 0.5), "scale_min < scale_max"),
        (lambda: EDM(1.0, t_min=2.0), "t_min < t_max"),
        (lambda: Shifted(EDM(), 0.0), "positive"),
    ],
)
def test_impossible_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@schedules
def test_alpha_is_known_from_the_level(name, x64):
    schedule = SCHEDULES[name]()
    t = times(schedule)
    alpha = jax.vmap(lambda t: schedule.alpha_of_level(schedule.level(t)))(t)
    assert jnp.allclose(alpha, jax.vmap(schedule.alpha)(t), rtol=1e-9)


# Rates that are linear, that vanish at first, and that have a corner.
INTEGRALS = {
    "linear": lambda t: 3.0 * t,
    "cube": lambda t: 10.0 * t**3,
    "corner": lambda t: jnp.where(t < 0.3, t, 5.0 * t - 1.2),
}


@pytest.mark.parametrize("name", INTEGRALS)
def test_an_inverse_that_is_not_given_is_found_to_the_last_bits(name):
    vp = VP(INTEGRALS[name], t_max=1.0)
    t = jnp.asarray(np.geomspace(1e-3, 0.999, 500), jnp.float32)
    back = jax.vmap(lambda t: inverse_integral(vp.int_beta, vp.int_beta(t), 0.0, 1.0))(
        t
    )
    np.testing.assert_allclose(back, t, rtol=4e-7)


def test_an_inverse_that_is_not_given_has_no_loop():
    """Samplers call it at each step of theirs, for a network that reads the time."""
    vp = VP(lambda t: t + t**2, t_max=2.0)
    program = jax.jit(vp.time_of_level).lower(0.5).as_text()
    assert "while" not in program
    slope = jax.grad(lambda level: vp.time_of_level(level))(0.5)
    step = 1e-2
    finite = (vp.time_of_level(0.5 + step) - vp.time_of_level(0.5 - step)) / (2 * step)
    assert jnp.allclose(slope, finite, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "schedule",
    [VP.linear(), VE(), EDM(), Cosine(), RectifiedFlow()],
    ids=lambda s: type(s).__name__,
)
def test_what_is_derived_from_alpha_and_sigma_is_the_closed_form(schedule, x64):
    levels = jnp.asarray(np.geomspace(0.003, 60.0, 31))

    @jax.jit
    def everything(t):
        def of(schedule):
            methods = (
                schedule.log_snr,
                schedule.drift,
                schedule.squared_diffusion,
                schedule.alpha_dot,
                schedule.sigma_dot,
            )
            at_levels = schedule.time_of_level, schedule.alpha_of_level
            return [jax.vmap(m)(t) for m in methods] + [
                jax.vmap(m)(levels) for m in at_levels
            ]

        return of(schedule), of(like(schedule))

    for closed, derived in zip(*everything(times(schedule)), strict=True):
        np.testing.assert_allclose(derived, closed, rtol=1e-9, atol=1e-12)


class Polynomial(AbstractSchedule):
    """A user's schedule of two methods, with a singular beginning and end."""

    t_min: float = 0.0
    t_max: float = 1.0

    def alpha(self, t):
        return 1.0 - t**2

    def sigma(self, t):
        return jnp.sqrt(t)


def test_two_methods_are_a_schedule():
    schedule = Polynomial()
    t = jnp.asarray([1e-12, 1e-4, 0.3, 0.99])
    back = jax.jit(jax.vmap(lambda t: schedule.time_of_level(schedule.level(t))))(t)
    np.testing.assert_allclose(back, t, rtol=2e-5)
    # g^2 = 1 - 2 f t, at time 0 too, where sigma has an infinite slope.
    assert schedule.squared_diffusion(0.0) == 1.0
    assert jnp.isinf(schedule.sigma_dot(0.0))


def test_a_schedule_of_functions_is_trainable(x64):
    class Power(eqx.Module):
        p: jax.Array

        def __call__(self, t):
            return t**self.p

    def time(p):
        schedule = CustomSchedule(lambda t: 1.0, Power(p), 50.0)
        return schedule.time_of_level(4.0)

    # t = 4^(1/p)
    value, slope = jax.jit(jax.value_and_grad(time))(jnp.asarray(2.0))
    assert jnp.allclose(value, 2.0, rtol=1e-12)
    assert jnp.allclose(slope, -2.0 * np.log(4.0) / 4.0, rtol=1e-9)


IMPOSSIBLE = {
    "rise": (lambda t: t, lambda t: 1.0 - t, "must rise with time"),
    "begin": (lambda t: 1.0 - 0.9 * t, lambda t: 0.1 + t, "must be clean"),
    "digits": (
        lambda t: jnp.exp(-5.0 * t),
        lambda t: jnp.sqrt(1.0 - jnp.exp(-10.0 * t)),
        r"no digits left there.*expm1",
    ),
}


@pytest.mark.parametrize("slip", IMPOSSIBLE)
def test_functions_that_are_no_schedule_are_named(slip):
    alpha, sigma, message = IMPOSSIBLE[slip]
    with pytest.raises(ValueError, match=message):
        CustomSchedule(alpha, sigma)


def test_a_schedule_is_made_of_functions():
    number: Any = 1.0
    with unhooked(), pytest.raises(TypeError, match=r"alpha=1\.0 is a float"):
        CustomSchedule(number, lambda t: t)
