"""The affine map between data and standardised data."""

from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar

PerColumn: TypeAlias = float | tuple[float, ...]
"""One number, or one for each index of the leading axis of an example."""


class Units(eqx.Module):
    r"""$x = m + S y$ with $y$ of mean 0 and standard deviation 1.

    **Fields:**

    - `mean`, `scale`: $m$ and the diagonal of $S$: a number; or one number for each
        index of the leading axis, which are the columns of a vector and the channels
        of an image.
    - `known`: whether they describe the data. They are 0 and 1, and unknown, for a
        denoiser that does not define them.
    """

    mean: PerColumn | Float[Array, "..."] = 0.0
    scale: PerColumn | Float[Array, "..."] = 1.0
    known: bool = eqx.field(default=True, static=True)

    @property
    def is_identity(self) -> bool:
        """True if mean and scale are the Python numbers 0 and 1."""
        mean, scale = self.mean, self.scale
        if not (isinstance(mean, float) and isinstance(scale, float)):
            return False
        return mean == 0.0 and scale == 1.0

    def to_unit(self, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Standardise one example."""
        if self.is_identity:
            return x
        return (x - along_leading(self.mean, x)) / along_leading(self.scale, x)

    def to_data(self, y: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Return the example that `to_unit` standardised."""
        if self.is_identity:
            return y
        return along_leading(self.mean, y) + along_leading(self.scale, y) * y

    def log_volume(self, x: Float[Array, "..."]) -> Scalar:
        r"""Return $\log |\det S|$ for an example of the shape of `x`."""
        return jnp.sum(jnp.log(along_leading(self.scale, x)))


def along_leading(
    values: PerColumn | Float[Array, "..."], x: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return one number, or one for each leading index, in the shape of `x`.

    **Raises:** `ValueError` for another number of values than the axis has.
    """
    values = jnp.asarray(values, x.dtype)
    if values.ndim == 0:
        return jnp.broadcast_to(values, x.shape)
    if x.ndim == 0 or values.shape[0] != x.shape[0]:
        raise ValueError(
            f"an example of shape {x.shape} where the denoiser's mean_data and "
            f"sigma_data have {values.shape[0]} numbers: they have one for each index "
            "of the leading axis (columns of a vector, channels of an image)"
        )
    return jnp.broadcast_to(values.reshape(-1, *[1] * (x.ndim - 1)), x.shape)
