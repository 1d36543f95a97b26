"""Base class of samplers that step down a grid of noise levels."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level, in_noise_units
from .._schedule.level_checks import check_coordinate, check_within, falling
from .._types import Cond, Numbers
from .ends import begin, finish
from .grid import AbstractGrid, with_grid
from .sampler import AbstractSampler, Draw


class AbstractGridSampler(AbstractSampler):
    r"""Base class of samplers that step from level to level in $x = x_t/\alpha_t$.

    The step from the last level to the data is the denoiser itself.
    """

    grid: eqx.AbstractVar[AbstractGrid]

    @property
    @abc.abstractmethod
    def evaluations_per_step(self) -> int:
        """Number of calls of the denoiser in each step."""

    @abc.abstractmethod
    def _walk(
        self,
        denoiser: AbstractDenoiser,
        x: Float[Array, "*shape"],
        levels: np.ndarray,
        key: PRNGKey | None,
        cond: Cond,
        trajectory: bool,
    ) -> tuple[Float[Array, "*shape"], Float[Array, "steps *shape"] | None]:
        """Return x at the last level, and at all before it if `trajectory`."""

    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
        start: Float[Array, "..."] | None = None,
    ) -> Draw:
        start_key, noise_key = jax.random.split(key)
        levels = self.levels(denoiser, shape)
        x = begin(denoiser, float(levels[0]), shape, cond, key=start_key, start=start)
        unit, _ = denoiser.standardised()
        x, path = self._walk(unit, x, levels, noise_key, cond, trajectory)
        if path is not None:
            path = jnp.concatenate([path, x[None]])
        count = self.evaluations_per_step * (len(levels) - 1) + 1
        return finish(denoiser, x, levels, path, cond, count)

    def beginning_at(self, level: float) -> AbstractSampler:
        return with_grid(self, self.grid.beginning_at(level))

    def levels(self, denoiser: AbstractDenoiser, shape: tuple[int, ...]) -> np.ndarray:
        return self.grid.levels(denoiser.schedule, shape)

    def steps(
        self,
        denoiser: AbstractDenoiser,
        x: Float[Array, "*shape"],
        levels: Numbers,
        *,
        key: PRNGKey | None = None,
        cond: Cond = None,
    ) -> Float[Array, "*shape"]:
        r"""Carry one $x = x_t/\alpha_t$ from the first level to the last.

        `schedule.perturb` gives $x_t$: `schedule.unscaled(x_t, t)` divides it, and
        `schedule.scaled(x, t)` is its inverse.

        **Arguments:**

        - `denoiser`: the model, evaluated `evaluations_per_step` times in each step.
        - `x`: at the noise level `levels[0]`, $x_0 + s N z$.
        - `levels`: falling noise levels $\sigma_t/\alpha_t$ of the denoiser's schedule,
            on the host. A last level of 0 is the data.
        - `key`: of the noise, if the scheme has any.
        - `cond`: what the denoiser is conditioned on.

        **Raises:** `ValueError` for a stochastic scheme without a key, and for levels
        that do not fall or that the schedule does not have.
        """
        levels = falling("levels", levels)
        to_data, levels = levels[-1] == 0.0, levels[levels > 0.0]
        check_within(
            denoiser.schedule,
            **{"levels[0]": levels[0], f"levels[{len(levels) - 1}]": levels[-1]},
        )
        unit, units = in_noise_units(denoiser)
        x = units.to_unit(x)
        check_coordinate(x, levels[0])
        if len(levels) > 1:
            x, _ = self._walk(unit, x, levels, key, cond, False)
        if to_data:
            # From the last level with noise to none, the step is the denoiser itself.
            x = at_level(unit, x, levels[-1], cond)
        return units.to_data(x)


def needed(key: PRNGKey | None) -> PRNGKey:
    """Return the key of a scheme that adds noise, and check that there is one."""
    if key is None:
        raise ValueError("key=None: this sampler adds noise, give steps(..., key=...)")
    check_key(key)
    return key
