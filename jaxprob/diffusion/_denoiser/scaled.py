"""A denoiser of standardised data, in the units of the data."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from ..._types import PRNGKey
from ...tree._single import single
from .._types import Cond, Level
from .data_scale import per_column_values
from .denoiser import AbstractDenoiser, check_denoiser
from .units import PerColumn, Units
from .wrapper import AbstractDenoiserWrapper


class Scaled(AbstractDenoiserWrapper):
    r"""Another denoiser with its data standardised inside, $x = m + S y$.

    $$D(x, s) = m + S\,D_y\big((x - m)/S, s\big),$$

    with the noise in the units of S. Samples and conditionals are in the data's units,
    and `log_prob` has the Jacobian, $\log p(x) = \log p_y(y) - \log |\det S|$. It is
    for a denoiser that was made for standardised data. `Preconditioned.fitted` makes a
    network a denoiser of data with columns of any scale directly.

    ```python
    scaled = Scaled(denoiser, mean=[100.0, -3.0], scale=[30.0, 0.1])
    ```

    **Arguments:**

    - `denoiser`: of the standardised data y.
    - `mean`, `scale`: m and the diagonal of S: one number, or one for each index of the
        leading axis of an example (columns of a vector, channels of an image), such as
        `mean` and `std` of a `jaxprob.datasets.Standardizer`.

    **Raises:** `ValueError` for a scale that is not positive and finite.
    """

    denoiser: AbstractDenoiser
    mean: PerColumn = eqx.field(static=True)
    scale: PerColumn = eqx.field(static=True)

    def __init__(self, denoiser: AbstractDenoiser, mean: Any, scale: Any):
        check_denoiser(denoiser)
        self.denoiser = denoiser
        self.mean = per_column_values("mean", mean)
        self.scale = per_column_values("scale", scale)
        if not (np.asarray(self.scale) > 0.0).all():
            raise ValueError(f"scale={scale}: a standard deviation must be positive")

    @property
    def _units(self) -> Units:
        return Units(self.mean, self.scale)

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        units = self._units
        y = units.to_unit(single(x))
        return units.to_data(self.denoiser.denoise(y, level, cond, key=key))

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        # An inner denoiser without units is that of y, with the noise z.
        if self.denoiser.noise_units().is_identity:
            return self.denoiser, self._units
        return self.denoiser.standardised()[0], self.noise_units()

    def noise_units(self) -> Units:
        inner = self.denoiser.noise_units()
        outer = self._units
        if inner.is_identity:
            return outer
        mean = np.asarray(self.mean) + np.asarray(self.scale) * np.asarray(inner.mean)
        scale = np.asarray(self.scale) * np.asarray(inner.scale)
        return Units(per_column_values("mean", mean), per_column_values("scale", scale))
