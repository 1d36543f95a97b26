"""Exponential Adams-Bashforth: the linear part exactly, the denoiser by polynomials."""

from collections.abc import Callable

import equinox as eqx
import numpy as np

from .grids import AbstractGrid, Focused
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
    polynomial that passes through it too (Adams-Moulton; this costs nothing), which
    raises the order by one.

    P is a polynomial in $\operatorname{arsinh} s$, which is s at low noise, where a
    denoiser settles like s, and $\log s$ at high noise, where what a trained network
    gives changes with the logarithm that it is told.

    Reference: *Fast Sampling of Diffusion Models with Exponential Integrator*, Zhang
    and Chen, 2023; the corrector as in *UniPC*, Zhao et al., 2023.

    ```python
    draws = sample(denoiser, ExpAB(18), key=key, num=64, shape=(1, 28, 28))
    ```

    **Arguments:**

    - `num_steps`: evaluations of the denoiser, plus one that ends at the data.
    - `order`: outputs in the polynomial of a step. 2 is best at ten evaluations of data
        with structure much finer than their spread, 3 beyond twenty.
    - `corrector`: whether to correct, with a polynomial of as many outputs.
    - `coordinate`: what P is a polynomial in: `"asinh"`, for data whose standard
        deviation is about 1; `"angle"`, $\arctan s$, for exact denoisers, which tend to
        the mean of the data like $1/s$; or `"log"`, as in the reference.
    - `grid`, `level_min`, `level_max`: as in `ODESampler`; by default `Focused`.
    """

    num_steps: int = eqx.field(static=True)
    order: int = eqx.field(static=True)
    corrector: bool = eqx.field(static=True)
    coordinate: str = eqx.field(static=True)
    grid: AbstractGrid
    level_min: float = eqx.field(static=True)
    level_max: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_steps: int = 18,
        *,
        order: int = 2,
        corrector: bool = True,
        coordinate: str = "asinh",
        grid: AbstractGrid | None = None,
        level_min: float = 0.002,
        level_max: float | None = None,
    ):
        if not 1 <= order <= 4:
            raise ValueError(f"order={order}: 1 to 4; higher ones are not stable")
        if coordinate not in _COORDINATES:
            raise ValueError(
                f"coordinate={coordinate!r} must be 'asinh', 'angle' or 'log'"
            )
        self.num_steps = num_steps
        self.order = order
        self.corrector = corrector
        self.coordinate = coordinate
        self.grid = Focused() if grid is None else grid
        self.level_min = level_min
        self.level_max = level_max

    def table(self, levels: np.ndarray) -> Table:
        num = len(levels) - 1
        predict = np.zeros((num, self.order))
        correct = np.zeros((num, max(self.order, 2)))
        for i in range(num):
            begin, end = levels[i], levels[i + 1]
            known = levels[max(0, i + 1 - self.order) : i + 1][::-1]
            predict[i, : len(known)] = self._weights(known, begin, end)
            if i > 0:
                # The step that led to point i, once more, with the output at i.
                known = levels[max(0, i + 1 - correct.shape[1]) : i + 1][::-1]
                weights = self._weights(known, levels[i - 1], begin)
                correct[i, : len(known)] = weights
        return Table(
            levels[1:] / levels[:-1], predict, correct if self.corrector else None
        )

    def _weights(self, known, begin, end):
        """Integrals of the Lagrange polynomials of the levels `known` over a step."""
        middle, half = np.log(begin * end) / 2.0, np.log(begin / end) / 2.0
        # Quadrature in -log s; b e^lambda d lambda is b/s times the length.
        s = np.exp(middle - half * _NODES)
        measure = half * _WEIGHTS * end / s
        coordinate = _COORDINATES[self.coordinate]
        points, x = coordinate(known), coordinate(s)
        weights = []
        for j, point in enumerate(points):
            others = np.delete(points, j)
            factors = (x[:, None] - others) / (point - others)
            weights.append(measure @ factors.prod(axis=1))
        return weights
