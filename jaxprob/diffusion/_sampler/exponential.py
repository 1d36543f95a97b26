"""Exponential Adams-Bashforth: an exact linear part, polynomials of the denoiser."""

from collections.abc import Callable

import equinox as eqx
import numpy as np

from .grid import AbstractGrid, as_grid
from .grids import FocusedGrid
from .multistep import AbstractMultistep, Table

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(24)
_COORDINATES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "asinh": np.arcsinh,
    "angle": np.arctan,
    "log": np.log,
}


class ExpAB(AbstractMultistep):
    r"""Exponential Adams-Bashforth with a corrector: our default at few evaluations.

    $$x_b = \frac{b}{a} x_a + b \int e^\lambda P(\lambda)\,d\lambda,$$

    with P the polynomial through the last `order` outputs of the denoiser. Once the
    denoiser has been evaluated at the new point, the step is made again with a
    polynomial that passes through it too (Adams-Moulton), which costs no evaluation and
    raises the order by one.

    P is a polynomial in $\operatorname{arsinh} s$ of the level s. That is s at low
    noise, where a denoiser converges like s, and $\log s$ at high noise, where a
    trained network's output changes with its input, the logarithm.

    Reference: *Fast Sampling of Diffusion Models with Exponential Integrator*, Zhang
    and Chen, 2023; the corrector as in *UniPC*, Zhao et al., 2023.

    ```python
    draws = sample(denoiser, ExpAB(18), key=key, num_samples=64, shape=(1, 28, 28))
    ```

    **Arguments:**

    - `grid`: noise levels, or a number of steps of `FocusedGrid`. There is one
        evaluation of the denoiser at each level; the last one ends at the data.
    - `order`: outputs in the polynomial of a step. 2 is best at ten evaluations of data
        with structure much finer than their spread, 3 beyond twenty.
    - `corrector`: whether to make each step again with the new output.
    - `coordinate`: the variable of P: `"asinh"`, for data whose standard
        deviation is about 1; `"angle"`, $\arctan s$, for exact denoisers, which tend to
        the mean of the data like $1/s$; or `"log"`, as in the reference.
    """

    grid: AbstractGrid
    order: int = eqx.field(static=True)
    corrector: bool = eqx.field(static=True)
    coordinate: str = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 18,
        *,
        order: int = 2,
        corrector: bool = True,
        coordinate: str = "asinh",
    ):
        if not 1 <= order <= 4:
            raise ValueError(
                f"order={order}: give 1 to 4; higher orders are not stable"
            )
        if coordinate not in _COORDINATES:
            raise ValueError(
                f"coordinate={coordinate!r} must be 'asinh', 'angle' or 'log'"
            )
        self.grid = as_grid(grid, FocusedGrid)
        self.order = order
        self.corrector = corrector
        self.coordinate = coordinate

    def table(self, levels: np.ndarray) -> Table:
        num = len(levels) - 1
        predict = np.zeros((num, self.order))
        correct = np.zeros((num, max(self.order, 2)))
        for i in range(num):
            begin, end = levels[i], levels[i + 1]
            known = levels[max(0, i + 1 - self.order) : i + 1][::-1]
            predict[i, : len(known)] = self._weights(known, begin, end)
            if i > 0:
                # The step that led to point i again, with the output at i.
                known = levels[max(0, i + 1 - correct.shape[1]) : i + 1][::-1]
                weights = self._weights(known, levels[i - 1], begin)
                correct[i, : len(known)] = weights
        return Table(
            levels[1:] / levels[:-1], predict, correct if self.corrector else None
        )

    def _weights(self, known, begin, end):
        """Return integrals of the Lagrange polynomials of known levels over a step."""
        middle, half = np.log(begin * end) / 2.0, np.log(begin / end) / 2.0
        # Quadrature in -log level; b e^lambda d lambda is b/level times the length.
        level = np.exp(middle - half * _NODES)
        measure = half * _WEIGHTS * end / level
        coordinate = _COORDINATES[self.coordinate]
        points, x = coordinate(known), coordinate(level)
        weights = []
        for j, point in enumerate(points):
            others = np.delete(points, j)
            factors = (x[:, None] - others) / (point - others)
            weights.append(measure @ factors.prod(axis=1))
        return weights
