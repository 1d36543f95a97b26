"""Thresholds: predicted data kept within the range of real data."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._types import Cond, Level
from .denoiser import AbstractDenoiser, check_denoiser
from .units import Units
from .wrapper import AbstractDenoiserWrapper


class Thresholded(AbstractDenoiserWrapper):
    r"""Another denoiser with its output kept in `[low, high]`.

    Static thresholding clips. Dynamic thresholding takes the quantile q of the output's
    distance from the middle of the range. If that is beyond the range, it shrinks all
    of the output by the excess, so that strong guidance saturates no pixels.

    Reference: *Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding*, Saharia et al., 2022, section 2.3.

    **Arguments:**

    - `denoiser`: any denoiser.
    - `low`, `high`: ends of the range of the data, in the data's units.
    - `quantile`: q in (0, 1] for dynamic thresholding, 0.995 in the paper; static if
        `None`.
    """

    denoiser: AbstractDenoiser
    units: Units
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    quantile: float | None = eqx.field(static=True)

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        low: float,
        high: float,
        *,
        quantile: float | None = None,
    ):
        check_denoiser(denoiser)
        if not low < high:
            raise ValueError(f"low={low} must be below high={high}")
        if quantile is not None and not 0.0 < quantile <= 1.0:
            raise ValueError(f"quantile={quantile} must be in (0, 1]")
        self.denoiser = denoiser
        self.units = Units()
        self.low = float(low)
        self.high = float(high)
        self.quantile = quantile

    def denoise(
        self,
        x: Float[Array, "*shape"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        x_0 = self.units.to_data(self.denoiser.denoise(x, level, cond, key=key))
        return self.units.to_unit(self._within(x_0))

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        # The range stays in the units of the data.
        inner, units = self.denoiser.standardised()
        return eqx.tree_at(
            lambda wrapper: (wrapper.denoiser, wrapper.units),
            self,
            (inner, units),
            is_leaf=lambda node: isinstance(node, Units),
        ), units

    def _within(self, x_0):
        if self.quantile is None:
            return jnp.clip(x_0, self.low, self.high)
        middle, half = (self.low + self.high) / 2.0, (self.high - self.low) / 2.0
        offset = x_0 - middle
        reach = jnp.maximum(jnp.quantile(jnp.abs(offset), self.quantile), half)
        return middle + jnp.clip(offset, -reach, reach) * (half / reach)
