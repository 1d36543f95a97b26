"""The cosine schedule."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, clip_time


class Cosine(AbstractSchedule):
    r"""$\alpha_t = \cos(\pi t/2)$, $\sigma_t = \sin(\pi t/2)$, t in [0, 1].

    Variance-preserving, with $f = -\tfrac{\pi}{2} \tan(\pi t/2)$ and
    $g^2 = \pi \tan(\pi t/2)$, and $\log$-SNR $-2 \log \tan(\pi t/2)$. At the last time
    nothing is left of the data and f is infinite, so samplers begin a little earlier.

    Reference: *Improved Denoising Diffusion Probabilistic Models*, Nichol and Dhariwal,
    2021, without their offset; *Progressive Distillation for Fast Sampling of Diffusion
    Models*, Salimans and Ho, 2022.
    """

    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self):
        self.t_min = 0.0
        self.t_max = 1.0

    def alpha(self, t: Time) -> Scalar:
        # The sine of the rest of time: cos(pi/2) in float32 is -4e-8, not 0.
        return jnp.sin(_QUARTER * (1.0 - jnp.asarray(t)))

    def sigma(self, t: Time) -> Scalar:
        return jnp.sin(_QUARTER * jnp.asarray(t))

    def log_snr(self, t: Time) -> Scalar:
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        angle = jnp.arctan(jnp.exp(-jnp.asarray(log_snr) / 2.0))
        return clip_time(self, angle / _QUARTER)

    def alpha_of_level(self, level: Time) -> Scalar:
        return jax.lax.rsqrt(1.0 + jnp.asarray(level) ** 2)

    def drift(self, t: Time) -> Scalar:
        return -_QUARTER * self.sigma(t) / self.alpha(t)

    def squared_diffusion(self, t: Time) -> Scalar:
        return 2.0 * _QUARTER * self.sigma(t) / self.alpha(t)

    def alpha_dot(self, t: Time) -> Scalar:
        return -_QUARTER * self.sigma(t)

    def sigma_dot(self, t: Time) -> Scalar:
        return _QUARTER * self.alpha(t)


_QUARTER = math.pi / 2.0
