"""The samplers of Karras et al., 2022."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._denoiser.denoiser import at_level
from .grid import AbstractGrid, as_grid
from .grid_sampler import AbstractGridSampler, needed
from .grids import KarrasGrid


class Heun(AbstractGridSampler):
    r"""Heun's method in the noise level, with churn: algorithms 1 and 2.

    A step from $s_i$ first adds noise up to $\hat s = s_i (1 + \gamma)$, with
    $\gamma = \min(S_{churn}/n, \sqrt2 - 1)$ where $S_{min} \le s_i \le S_{max}$, and
    then makes a step of Heun's method of $dx/ds = (x - D)/s$ to $s_{i+1}$.

    Prefer `ExpAB` at few evaluations. With churn, this sampler forgets early errors.

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022.

    **Arguments:**

    - `grid`: noise levels, or a number n of steps of `KarrasGrid`. Each step has two
        evaluations of the denoiser, and one more ends at the data.
    - `churn`: $S_{churn}$; 0 is deterministic, 30 to 80 in the paper.
    - `churn_min`, `churn_max`: $S_{min}$ and $S_{max}$, the levels that are churned.
    - `noise_scale`: $S_{noise}$, standard deviation of the noise added; 1.003 there.
    """

    grid: AbstractGrid
    churn: float = eqx.field(static=True)
    churn_min: float = eqx.field(static=True)
    churn_max: float = eqx.field(static=True)
    noise_scale: float = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 17,
        *,
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
        noise_scale: float = 1.0,
    ):
        if not 0.0 <= churn < math.inf:
            raise ValueError(
                f"churn={churn}: give the amount of noise to add, at least 0"
            )
        self.grid = as_grid(grid, KarrasGrid)
        self.churn = churn
        self.churn_min = churn_min
        self.churn_max = churn_max
        self.noise_scale = noise_scale

    @property
    def evaluations_per_step(self) -> int:
        return 2

    def _walk(self, denoiser, x, levels, key, cond, trajectory):
        begin, end = levels[:-1], levels[1:]
        gamma = min(self.churn / len(begin), math.sqrt(2.0) - 1.0)
        churned = (begin >= self.churn_min) & (begin <= self.churn_max)
        # The schedule has no level above its end.
        raised = np.minimum(begin * np.where(churned, 1.0 + gamma, 1.0), levels[0])
        added = self.noise_scale * np.sqrt(np.maximum(raised**2 - begin**2, 0.0))

        def slope(x, level):
            return (x - at_level(denoiser, x, level, cond)) / level

        def step(x, row):
            i, level, after, noise = row
            here = x
            if self.churn > 0.0:
                draw = jax.random.normal(
                    jax.random.fold_in(needed(key), i), x.shape, x.dtype
                )
                x = x + noise * draw
            first = slope(x, level)
            guess = x + (after - level) * first
            second = slope(guess, after)
            x = x + (after - level) * (first + second) / 2.0
            return x, (here if trajectory else None)

        rows = tuple(jnp.asarray(r, x.dtype) for r in (raised, end, added))
        return jax.lax.scan(step, x, (jnp.arange(len(end)), *rows))
