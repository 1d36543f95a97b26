"""The variance-preserving schedule of any noise rate."""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._types import Scalar, Time
from .equations import CLEAN, CUT
from .schedule import AbstractSchedule, check_ends, clip_time


class VP(AbstractSchedule):
    r"""Variance-preserving: $dx = -\tfrac12 \beta_t x\,dt + \sqrt{\beta_t}\,dw$.

    $$B_t = \int_0^t \beta, \quad \alpha_t = e^{-B_t/2}, \quad
      \sigma_t^2 = 1 - e^{-B_t}, \quad f_t = -\beta_t/2, \quad g_t^2 = \beta_t$$

    It is told by the integral $B$, so that no quadrature is needed; the rate is its
    derivative, by automatic differentiation.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021.

    ```python
    VP(lambda t: t, t_max=10.0)  # Kidger's example
    VP.linear(0.1, 20.0)         # Song et al.
    ```

    **Arguments:**

    - `int_beta`: $B(t)$, any increasing function of one time, 0 at time 0.
        An Equinox module with arrays makes the schedule trainable. Samplers choose
        their noise levels on the host: `sample` takes the arrays as constants, and a
        jit of your own should close over the denoiser.
    - `t_max`: end of time. $e^{-B/2}$ should be small there: 0.0067 for $B = 10$.
    - `t_min`: beginning of time.
    - `inverse`: $B^{-1}$, if there is a closed form; otherwise it is found by bisection
        and Newton's method, to the last bits.

    **Raises:** `ValueError` when `int_beta` is not finite, does not increase or is not
    0 at time 0 (a rate is not), or when `inverse` is not its inverse.
    """

    int_beta: Callable[..., Scalar]
    inverse: Callable[..., Scalar] | None
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(
        self,
        int_beta: Callable,
        t_max: float = 10.0,
        *,
        t_min: float = 0.0,
        inverse: Callable | None = None,
    ):
        check_ends("VP", t_min, t_max)
        if not callable(int_beta):
            raise TypeError(
                f"int_beta={int_beta!r} is a {type(int_beta).__name__}: give a "
                "function of the time, VP(lambda t: t), or VP.linear() for a linear "
                "rate"
            )
        self.int_beta = int_beta
        self.inverse = inverse
        self.t_min = float(t_min)
        self.t_max = float(t_max)
        self.check()

    @classmethod
    def linear(cls, beta_min: float = 0.1, beta_max: float = 20.0) -> "VP":
        r"""The linear rate $\beta_t = \beta_0 + t (\beta_1 - \beta_0)$ for t in [0, 1].

        **Arguments:**

        - `beta_min`: $\beta_0 > 0$; 0.1 in Song et al.
        - `beta_max`: $\beta_1 > \beta_0$; 20 in Song et al.
        """
        if not 0.0 < beta_min <= beta_max:
            raise ValueError(
                f"VP.linear(beta_min={beta_min:g}, beta_max={beta_max:g}): rates must "
                "satisfy 0 < beta_min <= beta_max"
            )
        rate = _LinearRate(float(beta_min), float(beta_max))
        return cls(rate.integral, 1.0, inverse=rate.inverse_integral)

    def check(self) -> None:
        _check_integral(self)

    def beta(self, t: Time) -> Scalar:
        r"""The rate $\beta_t = dB/dt$."""
        t = jnp.asarray(t)
        # Integers have no derivative.
        t = t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)
        return jax.jvp(self.int_beta, (t,), (jnp.ones_like(t),))[1]

    def alpha(self, t: Time) -> Scalar:
        return jnp.exp(-self.int_beta(jnp.asarray(t)) / 2.0)

    def sigma(self, t: Time) -> Scalar:
        # expm1: 1 - exp(-B) is 0 in float32 for B < 6e-8 and has lost half of its
        # digits at 1e-4.
        return jnp.sqrt(-jnp.expm1(-self.int_beta(jnp.asarray(t))))

    def log_snr(self, t: Time) -> Scalar:
        # -log(expm1(B)), written so that B > 88 does not overflow.
        b = self.int_beta(jnp.asarray(t))
        return -(b + jnp.log(-jnp.expm1(-b)))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        target = jax.nn.softplus(-jnp.asarray(log_snr))
        first = self.int_beta(jnp.full_like(target, self.t_min))
        last = self.int_beta(jnp.full_like(target, self.t_max))
        # Not beyond the ends: an inverse at infinity may well be NaN.
        inside = jnp.clip(target, first, last)
        t = _solve(self, inside) if self.inverse is None else self.inverse(inside)
        t = jnp.where(target <= first, self.t_min, t)
        return clip_time(self, jnp.where(target >= last, self.t_max, t))

    def drift(self, t: Time) -> Scalar:
        return -self.beta(t) / 2.0

    def diffusion2(self, t: Time) -> Scalar:
        return self.beta(t)


class _LinearRate(eqx.Module):
    beta_min: float = eqx.field(static=True)
    beta_max: float = eqx.field(static=True)

    def integral(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def inverse_integral(self, b: Scalar) -> Scalar:
        # The root of the quadratic in the form that does not cancel for small b.
        slope = self.beta_max - self.beta_min
        return 2.0 * b / (self.beta_min + jnp.sqrt(self.beta_min**2 + 2.0 * slope * b))


def _solve(schedule: VP, target: Scalar) -> Scalar:
    """The t with `int_beta(t) == target`."""
    ends = (
        jnp.full_like(target, schedule.t_min),
        jnp.full_like(target, schedule.t_max),
    )

    def bisect(_, bracket):
        low, high = bracket
        middle = (low + high) / 2.0
        below = schedule.int_beta(middle) < target
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    def newton(_, t):
        step = (schedule.int_beta(t) - target) / schedule.beta(t)
        polished = t - step
        return jnp.where((polished > low) & (polished < high), polished, t)

    low, high = jax.lax.fori_loop(0, 40, bisect, ends)
    root = jax.lax.fori_loop(0, 3, newton, (low + high) / 2.0)
    root = jax.lax.stop_gradient(root)
    # One more Newton step from the root moves nothing and has the derivatives of the
    # implicit function, with respect to the target and to what int_beta holds.
    beta = jax.lax.stop_gradient(schedule.beta(root))
    residual = schedule.int_beta(root) - target
    return root - (residual - jax.lax.stop_gradient(residual)) / beta


def _check_integral(vp: VP) -> None:
    """Check that `int_beta` is the integral of a rate, and `inverse` its inverse.

    **Raises:** `ValueError` or `TypeError` with the time and the value.
    """
    times = np.linspace(vp.t_min, vp.t_max, 129)

    def at(t):
        value = jnp.asarray(vp.int_beta(t))
        if value.shape != ():
            raise ValueError(
                f"int_beta(t) has shape {value.shape}: it is one number for one time"
            )
        back = t if vp.inverse is None else vp.inverse(value)
        return value, vp.beta(t), vp.int_beta(back)

    try:
        with jax.ensure_compile_time_eval():
            values = jax.vmap(at)(jnp.asarray(times, jnp.result_type(float)))
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "int_beta or its inverse cannot be traced by JAX, and samplers and losses "
            "are compiled: write them with jax.numpy, without `if` on the time"
        ) from error
    if any(isinstance(value, Tracer) for value in values):
        return  # in training
    integral, rate, back = (np.asarray(value, np.float64) for value in values)
    if not np.isfinite(integral).all():
        raise ValueError(
            f"int_beta({times[~np.isfinite(integral)][0]:g}) is not finite"
        )
    if integral[0] < 0:
        raise ValueError(
            f"int_beta({vp.t_min:g}) = {integral[0]:g}: an integral of a positive rate "
            "from 0 on cannot be negative"
        )
    falls = np.append(np.diff(integral) <= 0, False)
    if falls.any():
        place = int(np.argmax(falls))
        raise ValueError(
            f"int_beta must increase, but int_beta({times[place]:g}) = "
            f"{integral[place]:g} and int_beta({times[place + 1]:g}) = "
            f"{integral[place + 1]:g}. It is the integral of the noise rate, not the "
            "rate itself."
        )
    if (rate < 0).any():
        place = int(np.argmax(rate < 0))
        raise ValueError(
            f"int_beta must increase, but its derivative at t={times[place]:g} is "
            f"{rate[place]:g}"
        )
    level = math.sqrt(math.expm1(min(integral[0], 50.0)))
    limit = CLEAN if vp.t_min == 0.0 else CUT
    if level > limit:
        raise ValueError(
            f"int_beta({vp.t_min:g}) = {integral[0]:g}, so the schedule begins at "
            f"noise level {level:.3g} and not at the data. int_beta is the integral of "
            "the rate from 0 on, not the rate: for beta(t) = 0.1 + 19.9 t write "
            "VP(lambda t: 0.1 * t + 9.95 * t**2, 1.0), or VP.linear(0.1, 20.0)"
        )
    wrong = ~(np.abs(back - integral) <= 1e-3 * integral[-1] + 1e-2 * integral)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f"inverse is not the inverse of int_beta: int_beta({times[place]:g}) = "
            f"{integral[place]:g}, and int_beta(inverse({integral[place]:g})) = "
            f"{back[place]:g}. Leave it out to have it found numerically"
        )
