"""Errors and scores of angles, in radians."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import Weights, check_same_shape, floats, reduce


def angular_error(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """Mean absolute difference of angles the short way round, in [0, pi].

    3.1 and -3.1 differ by 0.083 and not by 6.2.

    **Arguments:**

    - `y`: what was observed, in radians.
    - `mean`: what was predicted, of the same shape.
    - `per_example`: return one value per element.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for different shapes or NaN.
    """
    y, mean = floats(y=y, mean=mean)
    check_same_shape(y=y, mean=mean)
    # The angle between two directions; a remainder would lose digits near zero.
    values = jnp.abs(jnp.arctan2(jnp.sin(y - mean), jnp.cos(y - mean)))
    return reduce(values, per_example, sample_weight)
