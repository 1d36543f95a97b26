"""The variance-preserving schedule of any noise rate."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Scalar, Time
from .integral_checks import check_integral
from .inverse import inverse_integral
from .schedule import AbstractSchedule, check_ends, clip_time


class VP(AbstractSchedule):
    r"""Variance-preserving: $dx = -\tfrac12 \beta_t x\,dt + \sqrt{\beta_t}\,dw$.

    $$B_t = \int_0^t \beta, \quad \alpha_t = e^{-B_t/2}, \quad
      \sigma_t^2 = 1 - e^{-B_t}, \quad f_t = -\beta_t/2, \quad g_t^2 = \beta_t$$

    It is given by the integral $B$, so that no quadrature is needed. The rate is its
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
        their noise levels on the host: `sample` takes the arrays as constants, and your
        own jit should close over the denoiser.
    - `t_max`: end of time. $e^{-B/2}$ should be small there: 0.0067 for $B = 10$.
    - `t_min`: beginning of time.
    - `inverse`: $B^{-1}$, if there is a closed form; by default a table and Newton's
        method find it to the last bits.

    **Raises:** `ValueError` when `int_beta` is not finite, does not increase or is not
    0 at time 0 (a rate is not 0 there), or when `inverse` is not its inverse.
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
        r"""Return the schedule of the rate $\beta_0 + t (\beta_1 - \beta_0)$ on [0, 1].

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
        check_integral(self)

    def beta(self, t: Time) -> Scalar:
        r"""Return the rate $\beta_t = dB/dt$."""
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
        # Not beyond the ends, where the user's inverse may be NaN.
        inside = jnp.clip(target, first, last)
        t = (
            inverse_integral(self.int_beta, inside, self.t_min, self.t_max)
            if self.inverse is None
            else self.inverse(inside)
        )
        t = jnp.where(target <= first, self.t_min, t)
        return clip_time(self, jnp.where(target >= last, self.t_max, t))

    def alpha_of_level(self, level: Time) -> Scalar:
        return jax.lax.rsqrt(1.0 + jnp.asarray(level) ** 2)

    def drift(self, t: Time) -> Scalar:
        return -self.beta(t) / 2.0

    def squared_diffusion(self, t: Time) -> Scalar:
        return self.beta(t)

    def alpha_dot(self, t: Time) -> Scalar:
        return self.drift(t) * self.alpha(t)

    def sigma_dot(self, t: Time) -> Scalar:
        sigma = self.sigma(t)
        return self.drift(t) * sigma + self.squared_diffusion(t) / (2.0 * sigma)


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
