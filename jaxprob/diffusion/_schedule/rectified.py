"""Straight paths from data to noise."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, clip_time


class RectifiedFlow(AbstractSchedule):
    r"""$x_t = (1 - t) x_0 + t z$, t in [0, 1]: rectified flow, flow matching.

    $f = -1/(1 - t)$, $g^2 = 2t/(1 - t)$; the velocity $z - x_0$ of a path is constant.
    With `predict="velocity"` and the loss on `"velocity"` this is flow matching with
    linear paths and independent ends. At the last time nothing is left of the data and
    f is infinite, so samplers begin a little earlier.

    Reference: *Flow Straight and Fast*, Liu et al., 2023; *Flow Matching for Generative
    Modeling*, Lipman et al., 2023 (whose time runs from noise to data).
    """

    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self):
        self.t_min = 0.0
        self.t_max = 1.0

    def alpha(self, t: Time) -> Scalar:
        return 1.0 - jnp.asarray(t)

    def sigma(self, t: Time) -> Scalar:
        return jnp.asarray(t)

    def log_snr(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        return 2.0 * (jnp.log1p(-t) - jnp.log(t))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        return clip_time(self, jax.nn.sigmoid(-jnp.asarray(log_snr) / 2.0))

    def alpha_of_level(self, level: Time) -> Scalar:
        return 1.0 / (1.0 + jnp.asarray(level))

    def drift(self, t: Time) -> Scalar:
        return -1.0 / (1.0 - jnp.asarray(t))

    def squared_diffusion(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        return 2.0 * t / (1.0 - t)

    def alpha_dot(self, t: Time) -> Scalar:
        return -jnp.ones_like(jnp.asarray(t))

    def sigma_dot(self, t: Time) -> Scalar:
        return jnp.ones_like(jnp.asarray(t))
