"""The one object at which training, sampling, likelihood and guidance meet."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ...tree._inference_mode import inference_mode
from .._schedule.argument_checks import check_kind
from .._schedule.schedule import AbstractSchedule, check_schedule
from .._types import Cond, Scalar, Time
from ..nn import AbstractConditioned
from .parameterisation import from_x0
from .units import Units, along_leading


class AbstractDenoiser(AbstractConditioned):
    r"""The posterior mean of the data, $D(x_t, t) = E[x_0 \mid x_t]$, and its schedule.

    With N = 1 unless `noise_units` says otherwise,

    $$x_t = \alpha_t x_0 + \sigma_t N z, \qquad
      \nabla \log p_t(x) = \frac{\alpha_t D(x, t) - x}{\sigma_t^2 N^2}.$$

    A trained network is a denoiser (`Preconditioned`); what takes a denoiser and
    changes it (guidance, ensembles) is one again, so every sampler works with it.
    All methods take one example.

    Samplers, losses and densities work with `standardised()`, the same denoiser for
    data of mean 0 and standard deviation 1: their levels, tolerances and grids are for
    such data. A denoiser of data of another scale should define it; one that wraps
    another denoiser inherits it from `AbstractDenoiserWrapper`.
    """

    schedule: eqx.AbstractVar[AbstractSchedule]

    @property
    def reader(self) -> Any:
        """The `nn.Embedding` that reads `cond`, if it is given it as it is."""
        return None

    @abc.abstractmethod
    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""$E[x_0 \mid x_t]$.

        **Arguments:**

        - `x_t`: one noisy example.
        - `t`: its time.
        - `cond`: what it is conditioned on, if anything.
        - `key`: for networks with dropout or random weights; samplers pass none.
        """

    def standardised(self) -> tuple["AbstractDenoiser", Units]:
        """The denoiser of the standardised data, and the map from the data to them.

        By default the denoiser itself: its data are taken to have mean 0 and standard
        deviation 1.

        **Returns:** a denoiser with N = 1 and the same schedule, and the map.
        """
        return self, Units(known=False)

    def noise_units(self) -> Units:
        """The units in which the schedule's noise is measured: N is their scale.

        They are either the identity, the default, or those of `standardised`.
        """
        return Units()

    def output_gain(self, t: Time) -> Scalar:
        """The error of the answer that an error of 1 of the network makes at t.

        Samplers warn of a large one at the first noise level if it shows. By default 1.
        """
        return jnp.ones_like(jnp.asarray(t))

    def perturb(
        self, x_0: Float[Array, "*shape"], t: Time, noise: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        r"""$x_t = \alpha_t x_0 + \sigma_t N z$ for standard normal z."""
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
        r"""The expected noise, $(x_t - \alpha_t D)/(\sigma_t N)$."""
        return self._as("eps", x_t, t, cond, key)

    def score(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""$\nabla \log p_t(x_t) = (\alpha_t D - x_t)/(\sigma_t N)^2$."""
        return self._as("score", x_t, t, cond, key)

    def v(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""The expected $\alpha_t N z - \sigma_t x_0$."""
        return self._as("v", x_t, t, cond, key)

    def velocity(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        r"""The probability flow $dx/dt = f_t x_t - \tfrac12 g_t^2 \nabla \log p_t$."""
        return self._as("velocity", x_t, t, cond, key)

    def _as(self, name, x_t, t, cond, key):
        x_0 = self(x_t, t, cond, key=key)
        value = from_x0(name, x_0, self.schedule, x_t, t)
        units = self.noise_units()
        if units.is_identity or name in ("x0", "v", "velocity"):
            # These two depend on the noise N z alone, which is x_t - alpha_t x_0.
            return value
        scale = along_leading(units.scale, x_t)
        return value / (scale if name == "eps" else scale**2)


class AbstractDenoiserWrapper(AbstractDenoiser):
    """A denoiser that changes the answers of another, `self.denoiser`.

    Schedule and units are those of the other. `standardised` is the same wrapper round
    the other's, which is right if the change is the same in any units of the data, as
    a weighted mean of answers is; otherwise a subclass defines `standardised`.
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]

    @property
    def schedule(self) -> AbstractSchedule:
        return self.denoiser.schedule

    @property
    def reader(self) -> Any:
        return self.denoiser.reader

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        inner, units = self.denoiser.standardised()
        return eqx.tree_at(lambda wrapper: wrapper.denoiser, self, inner), units

    def noise_units(self) -> Units:
        return self.denoiser.noise_units()

    def output_gain(self, t: Time) -> Scalar:
        return self.denoiser.output_gain(t)


def in_noise_units(denoiser: AbstractDenoiser) -> tuple[AbstractDenoiser, Units]:
    """A denoiser with N = 1 and the map to its coordinates: levels stay what they are.

    `standardised` may measure levels in another unit than the denoiser's own schedule.
    """
    units = denoiser.noise_units()
    return (denoiser, units) if units.is_identity else denoiser.standardised()


def check_denoiser(denoiser: Any) -> None:
    """What has a schedule and gives x_0, and not a network alone.

    **Raises:** `TypeError` with how to make one.
    """
    remedy = "wrap a network, Preconditioned(net, schedule)"
    check_kind("denoiser", denoiser, AbstractDenoiser, remedy)
    check_schedule(denoiser.schedule)
    _check_forwards_units(denoiser)


def _check_forwards_units(denoiser):
    """A wrapper measures noise in the units of what it wraps.

    **Raises:** `TypeError` if it does not.
    """
    if not denoiser.noise_units().is_identity:
        return

    def inside(node):
        return isinstance(node, AbstractDenoiser) and node is not denoiser

    for node in jax.tree.leaves(denoiser, is_leaf=inside):
        if inside(node) and not node.noise_units().is_identity:
            raise TypeError(
                f"{type(denoiser).__name__} holds a {type(node).__name__} whose noise "
                "is measured in the units of its data (sigma_data) and says nothing of "
                "them itself: make it a subclass of AbstractDenoiserWrapper, or define "
                "noise_units() and standardised()"
            )


def at_noise_level(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    log_level: Float[Array, ""],
    cond: Cond,
) -> Float[Array, "*shape"]:
    r"""$E[x_0 \mid x_0 + s z = x]$ for a noise level s given by its logarithm.

    In $x = x_t/\alpha_t$ the schedules differ no more: samplers and log_prob know only
    noise levels and call this, with a denoiser whose noise has N = 1. There is no key,
    so the denoiser is in inference mode: a network with dropout that has been trained
    is sampled without it.
    """
    schedule = denoiser.schedule
    t = schedule.time_of_log_snr(-2.0 * log_level).astype(x.dtype)
    return inference_mode(denoiser)(schedule.alpha(t) * x, t, cond)
