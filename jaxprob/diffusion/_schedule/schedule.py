"""What every schedule must say, and what follows from it."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._types import Scalar, Time
from .argument_checks import check_kind
from .equations import check_equations


class AbstractSchedule(eqx.Module):
    r"""How data turns into noise: data at small $t$, noise at the end of time.

    $$x_t = \alpha_t x_0 + \sigma_t z, \qquad z \sim N(0, I), \qquad
      dx = f_t x\,dt + g_t\,dw$$

    with $f = d\log\alpha/dt$ and $g^2 = d\sigma^2/dt - 2 f \sigma^2$. The noise level
    $s_t = \sigma_t / \alpha_t$ grows with $t$ and is all that tells one schedule from
    another once $x_t$ is divided by $\alpha_t$. $x_0$ are standardised data: a denoiser
    of others knows their scale and measures the noise in it.

    Times are scalars; `jax.vmap` the methods over several. A subclass gives closed
    forms that keep their relative precision at both ends, in float32 too. It is checked
    against these equations when it is made (`check`).
    """

    t_min: eqx.AbstractVar[float]
    t_max: eqx.AbstractVar[float]

    def __check_init__(self):
        # The closed forms of this package are checked by its tests instead.
        if not type(self).__module__.startswith(f"{__package__}."):
            check_equations(self)

    def check(self) -> None:
        """Check the schedule against its own equations, unless it is being traced.

        **Raises:** `ValueError` or `TypeError` that names the method and the time.
        """
        check_equations(self)

    @abc.abstractmethod
    def alpha(self, t: Time) -> Scalar:
        r"""What is left of the data, $\alpha_t$."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Scalar:
        r"""Standard deviation of the noise, $\sigma_t$."""

    @abc.abstractmethod
    def log_snr(self, t: Time) -> Scalar:
        r"""Log signal-to-noise ratio $\log(\alpha_t^2 / \sigma_t^2)$; falls with t."""

    @abc.abstractmethod
    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        """The inverse of `log_snr`. Values beyond the ends give the ends."""

    @abc.abstractmethod
    def drift(self, t: Time) -> Scalar:
        r"""$f_t = d \log \alpha_t / dt$."""

    @abc.abstractmethod
    def diffusion2(self, t: Time) -> Scalar:
        r"""$g_t^2 = d\sigma_t^2/dt - 2 f_t \sigma_t^2$."""

    def alpha_dot(self, t: Time) -> Scalar:
        r"""$d\alpha_t/dt$."""
        return self.drift(t) * self.alpha(t)

    def sigma_dot(self, t: Time) -> Scalar:
        r"""$d\sigma_t/dt$; infinite where $\sigma$ starts like a square root."""
        sigma = self.sigma(t)
        return self.drift(t) * sigma + self.diffusion2(t) / (2.0 * sigma)

    def noise_level(self, t: Time) -> Scalar:
        r"""$s_t = \sigma_t / \alpha_t$."""
        return jnp.exp(-self.log_snr(t) / 2.0)

    def time_of_noise_level(self, level: Time) -> Scalar:
        r"""The time at which $\sigma_t / \alpha_t$ is `level`."""
        return self.time_of_log_snr(-2.0 * jnp.log(jnp.asarray(level)))

    def perturb(
        self, x_0: Float[Array, "*shape"], t: Time, noise: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""$x_t = \alpha_t x_0 + \sigma_t z$, the coordinate of denoisers.

        Divide it by $\alpha_t$ for `steps` and `flow`: see `unscaled`.
        """
        return self.alpha(t) * x_0 + self.sigma(t) * noise

    def unscaled(self, x_t: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
        r"""$x_t/\alpha_t = x_0 + s_t z$, the coordinate in which samplers take steps.

        `AbstractGridSampler.steps` and `ODESampler.flow` take it beside noise levels;
        denoisers take $x_t$ beside times.
        """
        return x_t / self.alpha(t)

    def scaled(self, x: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
        r"""$x_t = \alpha_t x$, the inverse of `unscaled`."""
        return self.alpha(t) * x


def clip_time(schedule: AbstractSchedule, t: Scalar) -> Scalar:
    """Rounding may carry an inverse a little beyond the ends."""
    return jnp.clip(t, schedule.t_min, schedule.t_max)


def check_time(schedule: AbstractSchedule, t: Time) -> None:
    """There is one time; if it is known (not traced), between the schedule's ends.

    **Raises:** `ValueError` with the ends.
    """
    if jnp.ndim(t):
        raise ValueError(
            f"t has shape {jnp.shape(t)}: a denoiser takes one example and one time. "
            "For a batch write jax.vmap(denoiser)(x_t, t)"
        )
    if isinstance(t, Tracer):
        return
    value, slack = float(t), 1e-6 * (schedule.t_max - schedule.t_min)
    # `not (a <= b)` rather than `a > b`: NaN must not pass.
    if not schedule.t_min - slack <= value <= schedule.t_max + slack:
        raise ValueError(
            f"t={value:g} is outside the times of {type(schedule).__name__}, "
            f"[{schedule.t_min:g}, {schedule.t_max:g}]. If it is a noise level, turn "
            "it into a time with schedule.time_of_noise_level(level)."
        )


def check_schedule(schedule: Any) -> None:
    """A schedule that was made, `EDM()` and not `EDM`, and that is one still.

    A trained one is checked again against its equations.

    **Raises:** `TypeError` with how to make one, `ValueError` as `check` does.
    """
    remedy = "make a schedule, VP.linear() or EDM() say"
    check_kind("schedule", schedule, AbstractSchedule, remedy)
    # Without arrays it is what it was when it was made.
    if any(eqx.is_array(leaf) for leaf in jax.tree.leaves(schedule)):
        schedule.check()


def check_ends(name: str, t_min: float, t_max: float) -> None:
    """Time runs from `t_min` to a later `t_max`."""
    if not 0.0 <= t_min < t_max:
        raise ValueError(
            f"{name} has t_min={t_min:g} and t_max={t_max:g}; it needs "
            "0 <= t_min < t_max (data first, noise at the end)"
        )
