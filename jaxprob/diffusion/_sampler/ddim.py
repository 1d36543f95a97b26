"""Ancestral sampling and its deterministic limit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level, in_noise_units
from .._types import Cond, Level
from .grid import AbstractGrid, as_grid
from .grid_sampler import needed
from .grids import LogLevelGrid
from .multistep import AbstractMultistep, Table


class DDIM(AbstractMultistep):
    r"""DDIM with any amount of noise; $\eta = 1$ is DDPM's ancestral sampling.

    $$x_b = D + \sqrt{b^2 - n^2}\,\frac{x_a - D}{a} + n z, \qquad
      n = \eta\,\frac{b}{a} \sqrt{a^2 - b^2}$$

    Order one: prefer `ExpAB` at the same cost, and this for many stochastic steps.

    Reference: *Denoising Diffusion Implicit Models*, Song et al., 2021, equation 12;
    *Denoising Diffusion Probabilistic Models*, Ho et al., 2020.

    **Arguments:**

    - `grid`: noise levels, or a number of steps of `LogLevelGrid`. There is one
        evaluation of the denoiser at each level; the last one ends at the data.
    - `eta`: $\eta$ between 0 (deterministic) and 1 (DDPM).
    """

    grid: AbstractGrid
    eta: float = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 50,
        *,
        eta: float = 0.0,
    ):
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta={eta}: give a number between 0 (DDIM) and 1 (DDPM)")
        self.grid = as_grid(grid, LogLevelGrid)
        self.eta = eta

    def step(
        self,
        denoiser: AbstractDenoiser,
        x: Float[Array, "*shape"],
        level: Level,
        next_level: Level,
        *,
        key: PRNGKey | None = None,
        cond: Cond = None,
    ) -> Float[Array, "*shape"]:
        r"""Return one $x_t/\alpha_t$ a step further, a pure function of arrays.

        Unlike those of `steps`, the levels may be traced, so that loops of a user's are
        a `jax.lax.scan` over levels: RePaint's, or steps with a constraint between.

        **Arguments:**

        - `denoiser`: the model.
        - `x`: at the noise level `level`, as in `steps`.
        - `level`, `next_level`: the latter may be 0, which is the data.
        - `key`: of the noise, if `eta` is above 0.
        - `cond`: what the denoiser is conditioned on.
        """
        unit, units = in_noise_units(denoiser)
        x = units.to_unit(x)
        a, b = jnp.asarray(level, x.dtype), jnp.asarray(next_level, x.dtype)
        d = at_level(unit, x, a, cond)
        noise = self.eta * b / a * jnp.sqrt(jnp.maximum(a**2 - b**2, 0.0))
        keep = jnp.sqrt(jnp.maximum(b**2 - noise**2, 0.0)) / a
        x = keep * x + (1.0 - keep) * d
        if self.eta > 0.0:
            x = x + noise * jax.random.normal(needed(key), x.shape, x.dtype)
        return units.to_data(x)

    def table(self, levels: np.ndarray) -> Table:
        a, b = levels[:-1], levels[1:]
        noise = self.eta * b / a * np.sqrt(a**2 - b**2)
        keep = np.sqrt(b**2 - noise**2) / a
        stochastic = noise if self.eta > 0.0 else None
        return Table(keep, (1.0 - keep)[:, None], None, stochastic)
