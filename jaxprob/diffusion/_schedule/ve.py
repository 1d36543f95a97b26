"""The variance-exploding schedule."""

import math

import equinox as eqx
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, clip_time


class VE(AbstractSchedule):
    r"""Variance-exploding diffusion with a geometric noise scale, t in [0, 1].

    $$s(t) = s_0 (s_1/s_0)^t, \quad \alpha_t = 1, \quad \sigma_t^2 = s(t)^2 - s_0^2,
      \quad f = 0, \quad g_t^2 = 2 \log(s_1/s_0)\, s(t)^2$$

    $\sigma_0$ is zero, as an SDE that starts at the data requires.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, appendix C.

    **Arguments:**

    - `scale_min`: $s_0 > 0$, in units of the data's standard deviation.
    - `scale_max`: $s_1 > s_0$, likewise; about the largest distance between two data
        points.
    """

    scale_min: float = eqx.field(static=True)
    scale_max: float = eqx.field(static=True)
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, scale_min: float = 0.01, scale_max: float = 50.0):
        if not 0.0 < scale_min < scale_max:
            raise ValueError(
                f"VE(scale_min={scale_min:g}, scale_max={scale_max:g}): scales must "
                "satisfy 0 < scale_min < scale_max"
            )
        self.scale_min = float(scale_min)
        self.scale_max = float(scale_max)
        self.t_min = 0.0
        self.t_max = 1.0

    @property
    def _rate(self) -> float:
        return math.log(self.scale_max / self.scale_min)

    def alpha(self, t: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(t))

    def sigma(self, t: Time) -> Scalar:
        return self.scale_min * jnp.sqrt(jnp.expm1(2.0 * self._rate * jnp.asarray(t)))

    def log_snr(self, t: Time) -> Scalar:
        return -2.0 * jnp.log(self.sigma(t))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        # log1p(exp(a)) with a = -log_snr - 2 log(scale_min), which may be large.
        a = -jnp.asarray(log_snr) - 2.0 * math.log(self.scale_min)
        return clip_time(self, jnp.logaddexp(0.0, a) / (2.0 * self._rate))

    def alpha_of_level(self, level: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(level))

    def drift(self, t: Time) -> Scalar:
        return jnp.zeros_like(jnp.asarray(t))

    def squared_diffusion(self, t: Time) -> Scalar:
        rate = self._rate
        return 2.0 * rate * self.scale_min**2 * jnp.exp(2.0 * rate * jnp.asarray(t))

    def alpha_dot(self, t: Time) -> Scalar:
        return jnp.zeros_like(jnp.asarray(t))

    def sigma_dot(self, t: Time) -> Scalar:
        return self.squared_diffusion(t) / (2.0 * self.sigma(t))
