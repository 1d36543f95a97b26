"""The sub-variance-preserving schedule."""

import equinox as eqx
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, clip_time
from .vp import VP


class SubVP(AbstractSchedule):
    r"""The schedule with less noise than `VP`, and $\sigma \sim t$ near the data.

    $$\alpha_t = e^{-B_t/2}, \quad \sigma_t = 1 - e^{-B_t}, \quad
      f_t = -\beta_t/2, \quad g_t^2 = \beta_t (1 - e^{-2 B_t})$$

    Song et al. report better likelihoods with it than with VP.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 3.4.

    **Arguments:**

    - `vp`: the schedule whose rate $\beta$ this one shares.
    """

    vp: VP
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, vp: VP | None = None):
        self.vp = VP.linear() if vp is None else vp
        self.t_min = self.vp.t_min
        self.t_max = self.vp.t_max

    def check(self) -> None:
        self.vp.check()

    def alpha(self, t: Time) -> Scalar:
        return self.vp.alpha(t)

    def sigma(self, t: Time) -> Scalar:
        return -jnp.expm1(-self.vp.int_beta(jnp.asarray(t)))

    def log_snr(self, t: Time) -> Scalar:
        # The level is 2 sinh(B/2), written so that it does not overflow.
        b = self.vp.int_beta(jnp.asarray(t))
        return -2.0 * (b / 2.0 + jnp.log(-jnp.expm1(-b)))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        # B = 2 asinh(level/2), and VP's log-SNR at B is -log(expm1(B)).
        half = jnp.exp(-jnp.asarray(log_snr) / 2.0) / 2.0
        b = 2.0 * jnp.arcsinh(half)
        t = self.vp.time_of_log_snr(-(b + jnp.log(-jnp.expm1(-b))))
        return clip_time(self, jnp.where(jnp.isinf(b), self.t_max, t))

    def alpha_of_level(self, level: Time) -> Scalar:
        return jnp.exp(-jnp.arcsinh(jnp.asarray(level) / 2.0))

    def drift(self, t: Time) -> Scalar:
        return self.vp.drift(t)

    def squared_diffusion(self, t: Time) -> Scalar:
        t = jnp.asarray(t)
        return self.vp.beta(t) * -jnp.expm1(-2.0 * self.vp.int_beta(t))

    def alpha_dot(self, t: Time) -> Scalar:
        return self.drift(t) * self.alpha(t)

    def sigma_dot(self, t: Time) -> Scalar:
        # The general form is 0/0 at t = 0.
        t = jnp.asarray(t)
        return self.vp.beta(t) * jnp.exp(-self.vp.int_beta(t))
