"""Ancestral sampling and its deterministic limit."""

import equinox as eqx
import numpy as np

from .grid import AbstractGrid, as_grid
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

    def table(self, levels: np.ndarray) -> Table:
        a, b = levels[:-1], levels[1:]
        noise = self.eta * b / a * np.sqrt(a**2 - b**2)
        keep = np.sqrt(b**2 - noise**2) / a
        stochastic = noise if self.eta > 0.0 else None
        return Table(keep, (1.0 - keep)[:, None], None, stochastic)
