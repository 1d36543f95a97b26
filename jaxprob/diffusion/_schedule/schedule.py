"""The contract of a schedule: two abstract methods and what follows from them."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._types import Scalar, Time
from .argument_checks import check_kind
from .equations import check_equations
from .inverse import inverse_increasing

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractSchedule(eqx.Module):
    r"""Base class of schedules: data at small $t$ turn into noise at the end of time.

    $$x_t = \alpha_t x_0 + \sigma_t z, \qquad z \sim N(0, I), \qquad
      dx = f_t x\,dt + g_t\,dw$$

    with $f = d\log\alpha/dt$ and $g^2 = d\sigma^2/dt - 2 f \sigma^2$. The noise level
    $\sigma_t / \alpha_t$ grows with $t$. Once $x_t$ is divided by $\alpha_t$, schedules
    differ only in the level of each time. $x_0$ are standardised data: a denoiser of
    other data measures the noise in units of their scale.

    Times are scalars; `jax.vmap` the methods over several. A subclass gives `alpha` and
    `sigma`, in forms that keep their relative precision at both ends, in float32 too.
    The rest is derived, by automatic differentiation and a numerical inverse, and
    closed forms may replace it. A schedule is checked against these equations when it
    is made (`check`).

    ```python
    class Polynomial(AbstractSchedule):
        t_min: float = 0.0
        t_max: float = 1.0

        def alpha(self, t):
            return 1.0 - t**2

        def sigma(self, t):
            return t * jnp.sqrt(2.0 - t**2)
    ```
    """

    t_min: AbstractVar[float]
    t_max: AbstractVar[float]

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
        r"""Return the factor of the data, $\alpha_t$."""

    @abc.abstractmethod
    def sigma(self, t: Time) -> Scalar:
        r"""Return the standard deviation of the noise, $\sigma_t$."""

    def log_snr(self, t: Time) -> Scalar:
        r"""Return the log signal-to-noise ratio $\log(\alpha_t^2 / \sigma_t^2)$."""
        return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_of_log_snr(self, log_snr: Time) -> Scalar:
        """Return the inverse of `log_snr`; values beyond the ends give the ends."""

        def log_level(t):
            return -self.log_snr(t) / 2.0

        target = -jnp.asarray(log_snr) / 2.0
        return inverse_increasing(log_level, target, self.t_min, self.t_max)

    def drift(self, t: Time) -> Scalar:
        r"""Return $f_t = d \log \alpha_t / dt$."""
        return self.alpha_dot(t) / self.alpha(t)

    def squared_diffusion(self, t: Time) -> Scalar:
        r"""Return $g_t^2 = d\sigma_t^2/dt - 2 f_t \sigma_t^2$."""
        t = self._inside(t)
        return 2.0 * self.sigma(t) * (self.sigma_dot(t) - self.drift(t) * self.sigma(t))

    def alpha_dot(self, t: Time) -> Scalar:
        r"""Return $d\alpha_t/dt$."""
        return _slope(self.alpha, t)

    def sigma_dot(self, t: Time) -> Scalar:
        r"""Return $d\sigma_t/dt$, infinite where $\sigma$ starts like a square root."""
        return _slope(self.sigma, t)

    def level(self, t: Time) -> Scalar:
        r"""Return the noise level $\sigma_t / \alpha_t$ of a time."""
        return jnp.exp(-self.log_snr(t) / 2.0)

    def time_of_level(self, level: Time) -> Scalar:
        r"""Return the time at which $\sigma_t / \alpha_t$ is `level`."""
        return self.time_of_log_snr(-2.0 * jnp.log(jnp.asarray(level)))

    def alpha_of_level(self, level: Time) -> Scalar:
        r"""Return $\alpha_t$ at the time of a level; a closed form needs no time."""
        return self.alpha(self.time_of_level(level))

    def perturb(
        self, x_0: Float[Array, "*shape"], t: Time, noise: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""Return $x_t = \alpha_t x_0 + \sigma_t z$.

        Divide it by $\alpha_t$ for `steps`, `flow` and `denoise`: see `unscaled`.
        """
        return self.alpha(t) * x_0 + self.sigma(t) * noise

    def unscaled(self, x_t: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
        r"""Return $x_t/\alpha_t$, which is $x_0$ plus z times the noise level.

        `AbstractDenoiser.denoise`, `AbstractGridSampler.steps` and `ODESampler.flow`
        take it beside levels; calling a denoiser takes $x_t$ beside a time.
        """
        return x_t / self.alpha(t)

    def scaled(self, x: Float[Array, "*shape"], t: Time) -> Float[Array, "*shape"]:
        r"""Return $x_t = \alpha_t x$, the inverse of `unscaled`."""
        return self.alpha(t) * x

    def _inside(self, t):
        """Return a time after the first: at the data sigma times its rate is 0 inf."""
        first = max(1e-30 * (self.t_max - self.t_min), 1e-7 * abs(self.t_min))
        return jnp.maximum(_floating(t), self.t_min + first)


def _floating(t):
    """Return a time as a float: integers have no derivative."""
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)


def _slope(function, t):
    t = _floating(t)
    return jax.jvp(lambda t: jnp.asarray(function(t)), (t,), (jnp.ones_like(t),))[1]


def clip_time(schedule: AbstractSchedule, t: Scalar) -> Scalar:
    """Return a time between the ends: rounding may lead an inverse beyond them."""
    return jnp.clip(t, schedule.t_min, schedule.t_max)


def check_time(schedule: AbstractSchedule, t: Time) -> None:
    """Check that there is one time, between the schedule's ends if it is not traced.

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
            "it into a time with schedule.time_of_level(level), or call denoise."
        )


def check_schedule(schedule: Any) -> None:
    """Check that this is a schedule, `EDM()` and not `EDM`.

    A schedule with arrays may have been trained and is checked against its equations.

    **Raises:** `TypeError` with the call that makes one, `ValueError` as `check` does.
    """
    remedy = "make a schedule, e.g. VP.linear() or EDM()"
    check_kind("schedule", schedule, AbstractSchedule, remedy)
    # A schedule without arrays cannot have changed since it was made.
    if any(eqx.is_array(leaf) for leaf in jax.tree.leaves(schedule)):
        schedule.check()


def check_ends(name: str, t_min: float, t_max: float) -> None:
    """Check that time runs from `t_min` to a later `t_max`."""
    if not 0.0 <= t_min < t_max:
        raise ValueError(
            f"{name} has t_min={t_min:g} and t_max={t_max:g}; it needs "
            "0 <= t_min < t_max (data first, noise at the end)"
        )
