"""Predictor and corrector: a step down in noise, then Langevin steps at the level."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._denoiser.denoiser import at_level
from .._schedule.argument_checks import check_count
from .ddim import DDIM
from .grid import AbstractGrid, as_grid
from .grid_sampler import AbstractGridSampler, needed
from .grids import LogLevelGrid


class PredictorCorrector(AbstractGridSampler):
    r"""DDIM steps between noise levels, Langevin steps at each of them.

    At level s the distribution of x has the score $(D - x)/s^2$. Langevin's step of
    size $2 r^2 s^2$ is

    $$x \leftarrow x + 2 r^2 (D - x) + 2 r s z, \qquad z \sim N(0, I).$$

    Song et al. divide by the norm of each score, so that the ratio r of the step to the
    noise is always the same. The mean square of that norm over the data is known, so
    here the step has the same size for each example.

    The corrector moves samples back to the distribution of their level, and so removes
    errors of earlier steps. At few evaluations prefer `ExpAB`.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, algorithms 2 and 3.

    **Arguments:**

    - `grid`: noise levels of the predictor, or a number of steps of `LogLevelGrid`.
    - `num_corrections`: Langevin steps after each; each is an evaluation.
    - `ratio`: r, 0.16 in the paper; below 0.7, beyond which a step overshoots the
        mean. The variance is up to $1 / (1 - r^2)$ times too large.
    - `eta`: of the predictor, as in `DDIM`; 1 is ancestral sampling.
    """

    grid: AbstractGrid
    num_corrections: int = eqx.field(static=True)
    ratio: float = eqx.field(static=True)
    eta: float = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 100,
        *,
        num_corrections: int = 1,
        ratio: float = 0.16,
        eta: float = 1.0,
    ):
        what = "Langevin steps after each step, at least 0"
        check_count("num_corrections", num_corrections, what, least=0)
        if not 0.0 < ratio < math.sqrt(0.5):
            raise ValueError(
                f"ratio={ratio}: give a number above 0 and below 0.7, where a step "
                "overshoots"
            )
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta={eta}: give a number between 0 (DDIM) and 1 (DDPM)")
        self.grid = as_grid(grid, LogLevelGrid)
        self.num_corrections = num_corrections
        self.ratio = ratio
        self.eta = eta

    @property
    def evaluations_per_step(self) -> int:
        return 1 + self.num_corrections

    def _walk(self, denoiser, x, levels, key, cond, trajectory):
        key = needed(key)
        table = DDIM(eta=self.eta).table(levels)
        noise = np.zeros_like(table.keep) if table.noise is None else table.noise
        rows = (levels[:-1], levels[1:], table.keep, table.predict[:, 0], noise)
        rows = tuple(jnp.asarray(row, x.dtype) for row in rows)

        def step(x, row):
            i, level, after, keep, weight, noise = row
            here = x
            step_key = jax.random.fold_in(key, i)

            def draw(j):
                key = jax.random.fold_in(step_key, j)
                return jax.random.normal(key, x.shape, x.dtype)

            d = at_level(denoiser, x, level, cond)
            x = keep * x + weight * d + noise * draw(0)

            def correct(x, j):
                d = at_level(denoiser, x, after, cond)
                step = 2.0 * self.ratio**2
                return x + step * (d - x) + 2.0 * self.ratio * after * draw(j), None

            x, _ = jax.lax.scan(correct, x, jnp.arange(1, self.num_corrections + 1))
            return x, (here if trajectory else None)

        return jax.lax.scan(step, x, (jnp.arange(len(rows[0])), *rows))
