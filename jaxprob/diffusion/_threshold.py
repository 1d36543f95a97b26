"""Keeping predicted data within the range of real data."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import PRNGKey
from ._denoiser import AbstractDenoiser, check_denoiser
from ._schedule import AbstractSchedule
from ._types import Cond, Time


class Thresholded(AbstractDenoiser):
    r"""Another denoiser with its output kept in `[low, high]`.

    Static thresholding clips. Dynamic thresholding first takes the quantile q of the
    output's distance from the middle of the range, and if it is beyond the range
    shrinks all of the output by as much: strong guidance then saturates no pixels.

    Reference: *Photorealistic Text-to-Image Diffusion Models with Deep Language
    Understanding*, Saharia et al., 2022, section 2.3.

    **Arguments:**

    - `denoiser`: any denoiser.
    - `low`, `high`: ends of the range of the data.
    - `quantile`: q in (0, 1] for dynamic thresholding, 0.995 in the paper; static if
        `None`.
    """

    denoiser: AbstractDenoiser
    schedule: AbstractSchedule
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
        self.schedule = denoiser.schedule
        self.low = float(low)
        self.high = float(high)
        self.quantile = quantile

    @property
    def reader(self) -> Any:
        return self.denoiser.reader

    def __call__(
        self,
        x_t: Float[Array, "*shape"],
        t: Time,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, "*shape"]:
        x_0 = self.denoiser(x_t, t, cond, key=key)
        if self.quantile is None:
            return jnp.clip(x_0, self.low, self.high)
        middle, half = (self.low + self.high) / 2.0, (self.high - self.low) / 2.0
        offset = x_0 - middle
        reach = jnp.maximum(jnp.quantile(jnp.abs(offset), self.quantile), half)
        return middle + jnp.clip(offset, -reach, reach) * (half / reach)
