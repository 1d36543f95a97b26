"""The schedule whose time is the noise level."""

import equinox as eqx
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, check_ends, clip_time


class EDM(AbstractSchedule):
    r"""The schedule whose time is its level: $\alpha_t = 1$, $\sigma_t = t$.

    Hence $f_t = 0$ and $g_t^2 = 2t$.

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022.

    **Arguments:**

    - `t_max`: 80 in the paper.
    - `t_min`: 0.002, the paper's number. It is in units of the data's standard
        deviation here, as all levels are; the paper's data have 0.5.
    """

    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, t_max: float = 80.0, *, t_min: float = 0.002):
        check_ends("EDM", t_min, t_max)
        self.t_min = float(t_min)
        self.t_max = float(t_max)

    def alpha(self, t: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(t))

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t)

    def log_snr(self, t: Time) -> Scalar:
        return -2.0 * jnp.log(jnp.asarray(t))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        return clip_time(self, jnp.exp(-jnp.asarray(log_snr) / 2.0))

    def alpha_of_level(self, level: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(level))

    def drift(self, t: Time) -> Scalar:
        return jnp.zeros_like(jnp.asarray(t))

    def squared_diffusion(self, t: Time) -> Scalar:
        return 2.0 * jnp.asarray(t)

    def alpha_dot(self, t: Time) -> Scalar:
        return jnp.zeros_like(jnp.asarray(t))

    def sigma_dot(self, t: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(t))
