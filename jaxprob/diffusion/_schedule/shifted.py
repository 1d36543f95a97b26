"""A schedule moved to other noise levels."""

import equinox as eqx
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, check_schedule


class Shifted(AbstractSchedule):
    r"""Another schedule with m times its noise.

    $\sigma'_t = m \sigma_t$, so $\log$-SNR falls by $2 \log m$ and
    $f' = f$, $g'^2 = m^2 g^2$. Large images need it: averaging neighbouring pixels
    removes independent noise, so m grows with the side of the image.

    Reference: *simple diffusion*, Hoogeboom et al., 2023, who keep the variance one by
    dividing $\alpha$ and $\sigma$ by a common factor, which leaves the level as it is.

    **Arguments:**

    - `inner`: the schedule to shift.
    - `factor`: m > 0; side of the image over 64 in the paper.
    """

    inner: AbstractSchedule
    factor: float = eqx.field(static=True)
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(self, inner: AbstractSchedule, factor: float):
        check_schedule(inner)
        if not 0.0 < factor < float("inf"):
            raise ValueError(
                f"factor={factor}: give a positive number, which multiplies the noise"
            )
        self.inner = inner
        self.factor = float(factor)
        self.t_min = inner.t_min
        self.t_max = inner.t_max

    def check(self) -> None:
        self.inner.check()

    def alpha(self, t: Time) -> Scalar:
        return self.inner.alpha(t)

    def sigma(self, t: Time) -> Scalar:
        return self.factor * self.inner.sigma(t)

    def log_snr(self, t: Time) -> Scalar:
        return self.inner.log_snr(t) - 2.0 * jnp.log(self.factor)

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        shifted = jnp.asarray(log_snr) + 2.0 * jnp.log(self.factor)
        return self.inner.time_of_log_snr(shifted)

    def alpha_of_level(self, level: Time) -> Scalar:
        return self.inner.alpha_of_level(jnp.asarray(level) / self.factor)

    def drift(self, t: Time) -> Scalar:
        return self.inner.drift(t)

    def squared_diffusion(self, t: Time) -> Scalar:
        return self.factor**2 * self.inner.squared_diffusion(t)

    def alpha_dot(self, t: Time) -> Scalar:
        return self.inner.alpha_dot(t)

    def sigma_dot(self, t: Time) -> Scalar:
        return self.factor * self.inner.sigma_dot(t)
