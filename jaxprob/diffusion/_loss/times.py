"""Distributions of training times, as maps of a uniform number to a time."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._denoiser.spectrum import unit_rows, variances
from .._schedule.inverse import inverse_increasing
from .._schedule.schedule import AbstractSchedule
from .._types import Scalar
from .stratified import MARGIN


class AbstractTimes(eqx.Module):
    """Base class of distributions of training times, given by a quantile function.

    All randomness is in one uniform number, so any distribution can be stratified.

    ```python
    class EarlyTimes(AbstractTimes):
        def quantile(self, schedule, u):
            return schedule.t_min + (schedule.t_max - schedule.t_min) * u**2
    ```
    """

    @abc.abstractmethod
    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        """Return the time with probability `u` below it, u in (0, 1)."""

    def density(self, schedule: AbstractSchedule, t: Scalar) -> Scalar:
        """Return the density at t, the derivative of the inverse of `quantile`.

        `DenoisingLoss(unbiased=True)` alone needs it. By default it is found
        numerically, so that a subclass defines it only to save time.
        """

        def quantile(u):
            return self.quantile(schedule, u)

        u = inverse_increasing(quantile, t, 0.0, 1.0)
        return 1.0 / jax.jvp(quantile, (u,), (jnp.ones_like(u),))[1]


class UniformTimes(AbstractTimes):
    r"""Uniform between the schedule's ends: Song et al., 2021, Kidger's example."""

    def density(self, schedule: AbstractSchedule, t: Scalar) -> Scalar:
        return jnp.full_like(t, 1.0 / (schedule.t_max - schedule.t_min))

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        return schedule.t_min + (schedule.t_max - schedule.t_min) * u


class LogNormalLevels(AbstractTimes):
    r"""$\log(\sigma_t/\alpha_t)$ normal, cut off at the schedule's ends.

    Reference: Karras et al., 2022, section 5.

    **Arguments:**

    - `mean`, `std`: of the logarithm; -1.2 and 1.2 in the paper for data of standard
        deviation 0.5, which is about -0.5 for 1. The default is for small images and
        tables; `fitted` takes both from the data, which large images and smooth signals
        need.
    """

    mean: float = eqx.field(default=-0.5, static=True)
    std: float = eqx.field(default=1.2, static=True)

    def __check_init__(self):
        _check_normal(self)

    @classmethod
    def fitted(
        cls, denoiser: AbstractDenoiser, x_0: Float[np.ndarray | Array, "rows ..."]
    ) -> "LogNormalLevels":
        r"""Return levels at which this data set is decided, mixed with the default.

        A direction of variance $\lambda$ is decided at levels near $\sqrt\lambda$,
        where the slope of the best linear denoiser, $\lambda / (\lambda + s^2)$, falls
        by log s most. Smooth signals and large images have most of their variance, and
        often their class, in a few directions with $\sqrt\lambda$ of ten and more,
        where the default draws one level in a hundred or fewer: the network then hardly
        learns what a sample shows. Half of the weight goes to these levels, each
        direction by its variance, and half to the default. The mean and the variance of
        the logarithm are those of this mixture.

        **Arguments:**

        - `denoiser`: whose units standardise the data.
        - `x_0`: the data, of which the first 1,024 rows are used.

        **Raises:** `ValueError` for fewer than two rows, or rows that are all equal.
        """
        values = variances(unit_rows(denoiser, x_0))
        if len(x_0) < 2 or not values.sum() > 0.0:
            raise ValueError(
                f"x_0 has {len(x_0)} rows that do not differ: give the training data"
            )
        share = values / values.sum()
        centres = 0.5 * np.log(np.maximum(values, np.finfo(float).tiny))
        mean = share @ centres
        # The slope falls like a logistic density, of this variance in log s.
        variance = share @ (centres - mean) ** 2 + math.pi**2 / 12.0
        default = cls()
        middle = 0.5 * (mean + default.mean)
        apart = 0.25 * (mean - default.mean) ** 2
        spread = 0.5 * (variance + default.std**2) + apart
        return cls(float(middle), float(spread) ** 0.5)

    def density(self, schedule: AbstractSchedule, t: Scalar) -> Scalar:
        low, high = self._ends(schedule)
        z = (-schedule.log_snr(t) / 2.0 - self.mean) / self.std
        normal = jnp.exp(-0.5 * z**2) / (self.std * (2.0 * jnp.pi) ** 0.5)
        return normal * _log_level_dot(schedule, t) / (high - low)

    def _ends(self, schedule):
        return (
            jax.scipy.special.ndtr((-schedule.log_snr(t) / 2.0 - self.mean) / self.std)
            for t in (schedule.t_min, schedule.t_max)
        )

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        low, high = self._ends(schedule)
        # Never the ends themselves, at which the logarithm may be infinite.
        inside = jnp.clip(low + (high - low) * u, 1e-6, 1.0 - 1e-6)
        log_level = self.mean + self.std * jax.scipy.special.ndtri(inside)
        return schedule.time_of_log_snr(-2.0 * log_level)


class LogitNormalTimes(AbstractTimes):
    r"""$\mathrm{logit}(t)$ normal, for times between 0 and 1: the middle counts most.

    Reference: *Scaling Rectified Flow Transformers for High-Resolution Image
    Synthesis*, Esser et al., 2024, section 3.1.

    **Arguments:**

    - `mean`, `std`: of the logit; 0 and 1 in the paper.
    """

    mean: float = eqx.field(default=0.0, static=True)
    std: float = eqx.field(default=1.0, static=True)

    def __check_init__(self):
        _check_normal(self)

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        inside = jnp.clip(u, 1e-6, 1.0 - 1e-6)
        logit = self.mean + self.std * jax.scipy.special.ndtri(inside)
        span = schedule.t_max - schedule.t_min
        # A wide distribution rounds to the ends: see `uniforms`.
        part = jnp.clip(jax.nn.sigmoid(logit), MARGIN, 1.0 - MARGIN)
        return schedule.t_min + span * part

    def density(self, schedule: AbstractSchedule, t: Scalar) -> Scalar:
        span = schedule.t_max - schedule.t_min
        u = (t - schedule.t_min) / span
        z = (jnp.log(u) - jnp.log1p(-u) - self.mean) / self.std
        normal = jnp.exp(-0.5 * z**2) / (self.std * (2.0 * jnp.pi) ** 0.5)
        return normal / (u * (1.0 - u) * span)


class UniformLogSNR(AbstractTimes):
    r"""Uniform in $\log(\alpha_t/\sigma_t)$ between two noise levels.

    Since $d \log \mathrm{SNR}/dt = -g^2/\sigma^2$ for every schedule, Song et al. draw
    times from this distribution to estimate the likelihood bound: the bound's integrand
    over the density is half the error of eps, which is of order one at every level.

    Reference: *Maximum Likelihood Training of Score-Based Diffusion Models*, Song et
    al., 2021, section 4.2.

    ```python
    DenoisingLoss(LikelihoodWeighting(), UniformLogSNR(), unbiased=True)
    ```

    **Arguments:**

    - `level_min`, `level_max`: noise levels $\sigma_t/\alpha_t$, cut to the schedule's.
    """

    level_min: float = eqx.field(default=0.002, static=True)
    level_max: float = eqx.field(default=1e3, static=True)

    def __check_init__(self):
        if not 0.0 < self.level_min < self.level_max < math.inf:
            raise ValueError(
                f"UniformLogSNR(level_min={self.level_min}, level_max="
                f"{self.level_max}): noise levels must satisfy 0 < level_min < "
                "level_max, the little noise first"
            )

    def _ends(self, schedule):
        begin = -schedule.log_snr(schedule.t_min) / 2.0
        end = -schedule.log_snr(schedule.t_max) / 2.0
        low, high = math.log(self.level_min), math.log(self.level_max)
        return jnp.maximum(begin, low), jnp.minimum(end, high)

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        low, high = self._ends(schedule)
        return schedule.time_of_log_snr(-2.0 * (low + (high - low) * u))

    def density(self, schedule: AbstractSchedule, t: Scalar) -> Scalar:
        low, high = self._ends(schedule)
        return _log_level_dot(schedule, t) / (high - low)


def _check_normal(times):
    name = type(times).__name__
    if not 0.0 < times.std < math.inf:
        raise ValueError(
            f"{name}(std={times.std}): a standard deviation is a positive number"
        )
    if not math.isfinite(times.mean):
        raise ValueError(f"{name}(mean={times.mean}): give a finite mean")


def _log_level_dot(schedule, t):
    r"""Return $d\log(\sigma/\alpha)/dt = g^2/(2\sigma^2)$."""
    return schedule.squared_diffusion(t) / (2.0 * schedule.sigma(t) ** 2)
