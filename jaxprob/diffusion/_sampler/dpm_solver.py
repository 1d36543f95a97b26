"""DPM-Solver++, the multistep forms."""

import equinox as eqx
import numpy as np

from .grid import AbstractGrid, as_grid
from .grids import LogLevelGrid
from .multistep import AbstractMultistep, Table


class DPMSolverPP(AbstractMultistep):
    r"""DPM-Solver++(2M) and (3M), the most common fast samplers.

    With $h = \log(a/b)$ and $r$ the ratio of the step before to this one, 2M is

    $$x_b = \frac{b}{a} x_a + (1 - e^{-h})
      \Big[\big(1 + \tfrac{1}{2r}\big) D_i - \tfrac{1}{2r} D_{i-1}\Big],$$

    and 3M adds the second difference. `ExpAB` is more accurate at the same cost.

    Reference: *DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic
    Models*, Lu et al., 2022, algorithm 2.

    **Arguments:**

    - `grid`: noise levels, or a number of steps of `LogLevelGrid`. There is one
        evaluation of the denoiser at each level; the last one ends at the data.
    - `order`: 2 for 2M, 3 for 3M.
    """

    grid: AbstractGrid
    order: int = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 20,
        *,
        order: int = 2,
    ):
        if order not in (2, 3):
            raise ValueError(f"order={order}: give 2 (2M) or 3 (3M)")
        self.grid = as_grid(grid, LogLevelGrid)
        self.order = order

    def table(self, levels: np.ndarray) -> Table:
        h = np.log(levels[:-1] / levels[1:])
        predict = np.zeros((len(h), self.order))
        for i, step in enumerate(h):
            gain = -np.expm1(-step)
            if i == 0:
                predict[i, 0] = gain
            elif i == 1 or self.order == 2:
                half = step / h[i - 1] / 2.0
                predict[i, :2] = gain * np.array([1.0 + half, -half])
            else:
                predict[i] = _third_order(step, h[i - 1] / step, h[i - 2] / step)
        return Table(levels[1:] / levels[:-1], predict)


def _third_order(h, r0, r1):
    gain = -np.expm1(-h)
    phi2 = 1.0 - gain / h
    phi3 = phi2 / h - 0.5
    newest, first, second = np.eye(3)
    difference0 = (newest - first) / r0
    difference1 = (first - second) / r1
    d1 = difference0 + (difference0 - difference1) * r0 / (r0 + r1)
    d2 = (difference0 - difference1) / (r0 + r1)
    return gain * newest + phi2 * d1 - phi3 * d2
