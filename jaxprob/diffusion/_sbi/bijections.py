"""Bijections between the real line and the supports of priors."""

import abc
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, biject_to, constraints

from ...tree._promotion import lenient_promotion


class AbstractBijection(abc.ABC):
    """A map from all real numbers u onto the support of one prior."""

    @abc.abstractmethod
    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the parameter of the coordinates u."""

    @abc.abstractmethod
    def coordinates(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return u of a parameter inside the support."""

    @abc.abstractmethod
    def log_volume(self, u: Float[Array, "..."]) -> Float[Array, ""]:
        r"""Return $\log |\partial T/\partial u|$, summed over the entries."""


class NormalInterval(AbstractBijection):
    r"""$T(u) = a + (b - a)\,\Phi(u)$ onto the interval from a to b.

    A uniform prior becomes standard normal. The logistic function, numpyro's bijection,
    would give it heavier tails than the noise of a diffusion model has.

    **Arguments:**

    - `low`, `high`: a and b, numbers or arrays.
    """

    def __init__(self, low: Any, high: Any):
        self.low = np.asarray(low, float)
        self.high = np.asarray(high, float)

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        low, high = self._ends(u)
        # From the nearer end, so that digits near b are not lost, and clipped: the last
        # digit of the sum may lie outside.
        part = (high - low) * jax.scipy.special.ndtr(-jnp.abs(u))
        return jnp.clip(jnp.where(u < 0.0, low + part, high - part), low, high)

    def coordinates(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        low, high = self._ends(value)
        part = jnp.minimum(value - low, high - value) / (high - low)
        # An end has no coordinate; the last one before it is that of a rounding error.
        size = -jax.scipy.special.ndtri(
            jnp.clip(part, 0.5 * jnp.finfo(part.dtype).eps, 0.5)
        )
        return jnp.where(value - low < high - value, -size, size)

    def log_volume(self, u: Float[Array, "..."]) -> Float[Array, ""]:
        low, high = self._ends(u)
        density = -0.5 * u**2 - 0.5 * math.log(2.0 * math.pi)
        return jnp.sum(density + jnp.log(high - low))

    def _ends(self, like):
        ends = (jnp.asarray(end, like.dtype) for end in (self.low, self.high))
        return tuple(jnp.broadcast_to(end, like.shape) for end in ends)


class NumpyroBijection(AbstractBijection):
    """The bijection of numpyro onto any other support, `biject_to`."""

    def __init__(self, support: Any):
        self.transform = biject_to(support)

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        with lenient_promotion():
            return jnp.asarray(self.transform(u), u.dtype)

    def coordinates(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        with lenient_promotion():
            return jnp.asarray(self.transform.inv(value), value.dtype)

    def log_volume(self, u: Float[Array, "..."]) -> Float[Array, ""]:
        with lenient_promotion():
            return jnp.sum(self.transform.log_abs_det_jacobian(u, self.transform(u)))


def bijection_of(prior: Distribution) -> AbstractBijection:
    """Return the bijection onto the support of a prior.

    **Raises:** `TypeError` for a prior of whole numbers or of an unknown support.
    """
    support: Any = prior.support
    while isinstance(support, constraints.independent(constraints.real, 0).__class__):
        support = support.base_constraint
    if support is None or support.is_discrete:
        raise TypeError(
            f"the prior {type(prior).__name__} is discrete: a diffusion model has "
            "continuous parameters. Give a continuous prior, or one simulator for each "
            "value"
        )
    if isinstance(support, constraints.interval(0.0, 1.0).__class__):
        return NormalInterval(support.lower_bound, support.upper_bound)
    try:
        return NumpyroBijection(prior.support)
    except NotImplementedError:
        raise TypeError(
            f"numpyro has no bijection onto the support of {type(prior).__name__}: "
            "biject_to raises NotImplementedError. Transform the parameter in the "
            "simulator and give the prior of the transformed one"
        ) from None
