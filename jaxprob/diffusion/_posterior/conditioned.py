r"""The base class of denoisers of $p(x \mid y)$."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._denoiser.units import Units
from .._denoiser.wrapper import AbstractDenoiserWrapper
from .._schedule.argument_checks import check_kind
from .._types import Cond, Level
from .observation import Measured, Observation

Prior: TypeAlias = Callable[[Float[Array, "..."]], Float[Array, "..."]]
"""The unconditional denoiser at one level, a function of x."""


class AbstractPosteriorDenoiser(AbstractDenoiserWrapper):
    r"""A denoiser of p(x) and a measurement, as a denoiser of $p(x \mid y)$.

    A subclass defines `answer`. It approximates
    $E[x_0 \mid x_0 + s z = x,\ y] = D(x, s) + s^2 \nabla_x \log p(y \mid x)$.

    A sampler's condition may be `Measured(y, cond)`, with a measurement of each sample.

    **Raises:** `ValueError` for a measurement that the method does not take.
    """

    denoiser: eqx.AbstractVar[AbstractDenoiser]
    observation: eqx.AbstractVar[Observation]

    takes_exact: ClassVar[bool] = False
    """True if noise of 0 is possible."""
    requires_linear: ClassVar[bool] = False
    """True if the operator must be linear."""

    def __check_init__(self):
        check_denoiser(self.denoiser)
        observation, name = self.observation, type(self).__name__
        remedy = "write Observation(y, operator, noise=0.1)"
        check_kind("observation", observation, Observation, remedy)
        if observation.is_exact and not self.takes_exact:
            raise ValueError(
                f"noise is 0 and {name} divides by it: give a small number, e.g. a "
                "thousandth of the standard deviation of y, or take Replacement, which "
                "is for exact measurements"
            )
        if self.requires_linear and not observation.is_linear:
            raise ValueError(
                f"{name} requires a linear operator: write Observation(y, operator, "
                "noise=..., linear=True, shape=x.shape) if it is, or take MMPS"
            )

    @abc.abstractmethod
    def answer(
        self,
        prior: Prior,
        observation: Observation,
        x: Float[Array, "*shape"],
        level: Level,
    ) -> Float[Array, "*shape"]:
        r"""Return an approximation of $E[x_0 \mid x_0 + s z = x,\ y]$.

        **Arguments:**

        - `prior`: $x \mapsto D(x, s)$ at this level.
        - `observation`: of an x in the units of `prior`.
        - `x`, `level`: as in `denoise`, with N = 1.
        """

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        if not self.noise_units().is_identity:
            unit, units = self.standardised()
            y = unit.denoise(units.to_unit(x), level, cond, key=key)
            return units.to_data(y)
        observation, cond = measured(self.observation, cond)

        def prior(x):
            return self.denoiser.denoise(x, level, cond, key=key)

        return self.answer(prior, observation, x, level)

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        inner, units = self.denoiser.standardised()
        observation = self.observation.in_units(units)
        posterior = eqx.tree_at(
            lambda posterior: (posterior.denoiser, posterior.observation),
            self,
            (inner, observation),
        )
        return posterior, units


def as_positive(name: str) -> Callable[[Any], Any]:
    """Return the converter of a field that is a positive number, or a traced one.

    **Arguments:**

    - `name`: of the field, for the message of the `ValueError`.
    """

    def convert(value):
        if not isinstance(value, float | int):
            return value
        if not 0.0 < value < math.inf:
            raise ValueError(f"{name}={value}: give a positive number, e.g. 1.0")
        return float(value)

    return convert


def measured(observation: Observation, cond: Any) -> tuple[Observation, Cond]:
    """Return the observation of one sample and the denoiser's condition.

    **Arguments:**

    - `observation`: that of all samples.
    - `cond`: of one sample; a `Measured` replaces y.
    """
    if not isinstance(cond, Measured):
        return observation, cond
    return observation.with_y(cond.y), cond.cond
