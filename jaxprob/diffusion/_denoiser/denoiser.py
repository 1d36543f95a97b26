"""The contract of a denoiser: the object that losses, samplers and densities share."""

import abc
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ...tree._inference_mode import inference_mode
from ...tree._single import single
from .._schedule.argument_checks import check_kind
from .._schedule.schedule import AbstractSchedule, check_schedule, check_time
from .._types import Cond, Level, Scalar, Time
from ..nn import AbstractConditioned, AbstractReader
from .parameterisation import from_x0
from .units import Units, along_leading

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

# At the last time of some schedules alpha is 0. Levels end here, where nothing is left
# of the data in single precision and x_t / alpha is still finite.
_HIGHEST_LEVEL = 1e6


class AbstractDenoiser(AbstractConditioned):
    r"""The posterior mean of the data, and the schedule of the noise.

    A subclass defines `denoise`, at a noise level $s = \sigma_t/\alpha_t$:

    $$D(x, s) = E[x_0 \mid x_0 + s N z = x], \qquad z \sim N(0, I),$$

    where N = 1 unless `noise_units` says otherwise. All schedules are alike in
    $x = x_t/\alpha_t$ and s, so samplers, losses, densities, guidance and wrappers pass
    levels, and time appears only where a network was trained on it.

    In a schedule's own coordinates, calling the denoiser gives the same mean, and
    `score`, `eps`, `v` and `velocity` are other forms of it:

    $$D(x_t, t) = E[x_0 \mid x_t], \qquad
      \nabla \log p_t(x_t) = \frac{\alpha_t D(x_t, t) - x_t}{\sigma_t^2 N^2}.$$

    A trained network is a denoiser (`Preconditioned`). A change of a denoiser, such as
    guidance, is again a denoiser (`AbstractDenoiserWrapper`), so every sampler works
    with it. All methods take one example.

    Samplers, losses and densities work with `standardised()`, the same denoiser for
    data of mean 0 and standard deviation 1: their levels, tolerances and grids are for
    such data. A denoiser of data of another scale should define it.
    """

    schedule: AbstractVar[AbstractSchedule]

    def __check_init__(self):
        _check_forwards(self)

    @abc.abstractmethod
    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return $E[x_0 \mid x_0 + s N z = x]$.

        **Arguments:**

        - `x`: one noisy example, $x_t/\alpha_t$.
        - `level`: its noise level $s = \sigma_t/\alpha_t$.
        - `cond`: its condition, if there is one.
        - `key`: for networks with dropout or random weights; samplers pass none.
        """

    @property
    def reader(self) -> AbstractReader | None:
        """The part of a network that reads `cond` as it is given."""
        return None

    def standardised(self) -> tuple["AbstractDenoiser", Units]:
        """Return the denoiser of the standardised data and the map from the data.

        By default the denoiser itself: its data are taken to have mean 0 and standard
        deviation 1.

        **Returns:** a denoiser with N = 1 and the same schedule, and the map.
        """
        return self, Units(known=False)

    def noise_units(self) -> Units:
        """Return the units in which the schedule's noise is measured: N is their scale.

        They are either the identity, the default, or those of `standardised`.
        """
        return Units()

    def output_gain(self, level: Level) -> Scalar:
        """Return the error of the answer for an error of 1 of the network at a level.

        `sample` warns where a large gain shows at the first level. By default 1.
        """
        return jnp.ones_like(jnp.asarray(level))

    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return $E[x_0 \mid x_t]$ at a time.

        **Arguments:**

        - `x_t`: one noisy example.
        - `t`: its time, between the schedule's ends.
        - `cond`, `key`: as in `denoise`.
        """
        x, level = self._at_level(x_t, t)
        return self.denoise(x, level, cond, key=key)

    def perturb(
        self, x_0: Float[Array, "*shape"], t: Time, noise: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""Return $x_t = \alpha_t x_0 + \sigma_t N z$ for standard normal z."""
        scale = along_leading(self.noise_units().scale, noise)
        return self.schedule.perturb(x_0, t, scale * noise)

    def eps(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return the expected noise, $(x_t - \alpha_t D)/(\sigma_t N)$."""
        return self._as("eps", x_t, t, cond, key)

    def score(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return $\nabla \log p_t(x_t) = (\alpha_t D - x_t)/(\sigma_t N)^2$."""
        return self._as("score", x_t, t, cond, key)

    def v(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return the expected $\alpha_t N z - \sigma_t x_0$."""
        return self._as("v", x_t, t, cond, key)

    def velocity(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""Return the probability flow's $f_t x_t - \tfrac12 g_t^2 \nabla\log p_t$."""
        return self._as("velocity", x_t, t, cond, key)

    def _as(self, name, x_t, t, cond, key):
        x, level = self._at_level(x_t, t)
        x_0 = self.denoise(x, level, cond, key=key)
        value = from_x0(name, x_0, self.schedule, x=x, level=level)
        units = self.noise_units()
        if units.is_identity or name in ("v", "velocity"):
            # These two depend on the noise N z alone, which is x_t - alpha_t x_0.
            return value
        scale = along_leading(units.scale, x_t)
        return value / (scale if name == "eps" else scale**2)

    def _at_level(self, x_t, t):
        """Return $x_t/\\alpha_t$ and the level of a time."""
        check_time(self.schedule, t)
        x_t = single(x_t)
        t = jnp.asarray(t, x_t.dtype)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        alpha = jnp.maximum(alpha, sigma / _HIGHEST_LEVEL)
        return x_t / alpha, sigma / alpha


def in_noise_units(denoiser: AbstractDenoiser) -> tuple[AbstractDenoiser, Units]:
    """Return a denoiser with N = 1 at the same levels, and the map to its coordinates.

    `standardised` may measure levels in another unit than the denoiser's own schedule.
    """
    units = denoiser.noise_units()
    return (denoiser, units) if units.is_identity else denoiser.standardised()


def check_denoiser(denoiser: Any) -> None:
    """Check that this is a denoiser, and not a network alone.

    **Raises:** `TypeError` with the call that makes one.
    """
    remedy = "wrap a network, Preconditioned(net, schedule)"
    check_kind("denoiser", denoiser, AbstractDenoiser, remedy)
    check_schedule(denoiser.schedule)


def _check_forwards(denoiser):
    """Check that a denoiser that holds others speaks for them.

    **Raises:** `TypeError` if it inherits the defaults where another one differs.
    """

    def inside(node):
        return isinstance(node, AbstractDenoiser) and node is not denoiser

    cls = type(denoiser)
    for node in filter(inside, jax.tree.leaves(denoiser, is_leaf=inside)):
        lost = []
        units_are_default = cls.noise_units is AbstractDenoiser.noise_units
        if units_are_default and not node.noise_units().is_identity:
            lost.append("noise_units() and standardised()")
        if cls.reader is AbstractDenoiser.reader and node.reader is not None:
            lost.append("reader")
        if lost:
            raise TypeError(
                f"{cls.__name__} holds a {type(node).__name__} and does not forward "
                f"its {' and '.join(lost)}: make {cls.__name__} a subclass of "
                "AbstractDenoiserWrapper, which forwards them, or define them"
            )


def at_level(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    level: Level,
    cond: Cond,
) -> Float[Array, "*shape"]:
    r"""Return `denoiser.denoise(x, level, cond)` in inference mode.

    Samplers and densities call this, with a denoiser whose noise has N = 1. There is no
    key, so dropout in a network that was trained with it is off.
    """
    return inference_mode(denoiser).denoise(x, jnp.asarray(level, x.dtype), cond)
