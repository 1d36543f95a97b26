"""Samplers that go down a grid of noise levels, one step of their own at a time."""

import abc

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .._keys import check_key
from .._types import PRNGKey
from ._denoiser import AbstractDenoiser
from ._grids import AbstractGrid, check_num_steps, falling_levels
from ._sampler import AbstractSampler, Draw, finish
from ._types import Cond


class AbstractGridSampler(AbstractSampler):
    r"""Steps from level to level in $x = x_t/\alpha_t$, then the denoiser itself."""

    num_steps: eqx.AbstractVar[int]
    grid: eqx.AbstractVar[AbstractGrid]
    level_min: eqx.AbstractVar[float]
    level_max: eqx.AbstractVar[float | None]

    def __check_init__(self):
        check_num_steps(self.num_steps)

    @property
    @abc.abstractmethod
    def evaluations_per_step(self) -> int:
        """Calls of the denoiser in each step."""

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
        """x at the last level, and at all before it if `trajectory`."""

    def draw(
        self,
        denoiser: AbstractDenoiser,
        key: PRNGKey,
        shape: tuple[int, ...],
        *,
        cond: Cond = None,
        trajectory: bool = False,
    ) -> Draw:
        start_key, noise_key = jax.random.split(key)
        levels = falling_levels(
            self.grid,
            denoiser.schedule,
            self.level_min,
            self.level_max,
            self.num_steps,
        )
        x = levels[0] * jax.random.normal(start_key, shape)
        x, path = self._walk(denoiser, x, levels, noise_key, cond, trajectory)
        count = self.evaluations_per_step * (len(levels) - 1) + 1
        return finish(denoiser, x, levels, path, cond, count)

    def steps(
        self,
        denoiser: AbstractDenoiser,
        x: Float[Array, "*shape"],
        levels: np.ndarray,
        *,
        key: PRNGKey | None = None,
        cond: Cond = None,
    ) -> Float[Array, "*shape"]:
        r"""Carries one $x = x_t/\alpha_t$ from the first level to the last.

        **Arguments:**

        - `denoiser`: the model, evaluated `evaluations_per_step` times in each step.
        - `x`: at the noise level `levels[0]`.
        - `levels`: falling noise levels, on the host.
        - `key`: of the noise, if the scheme has any.
        - `cond`: what the denoiser is conditioned on.

        **Raises:** `ValueError` for a stochastic scheme without a key.
        """
        levels = np.asarray(levels, dtype=float)
        return self._walk(denoiser, x, levels, key, cond, False)[0]


def needed(key: PRNGKey | None) -> PRNGKey:
    """The key of a scheme that adds noise."""
    if key is None:
        raise ValueError("key=None: this sampler adds noise, give steps(..., key=...)")
    check_key(key)
    return key
