"""The mean and the standard deviation of a data set."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from ..._checks import check_finite, check_floating
from .units import PerColumn


def mean_and_scale(
    data: Shaped[np.ndarray | Array, "rows ..."], per_column: bool | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and the standard deviation of rows, as `Units` takes them.

    **Arguments:**

    - `data`, `per_column`: as in `Preconditioned.fitted`.

    **Raises:** `ValueError` for data that are not finite, with the row, or that are
    constant.
    """
    if isinstance(data, tuple | list):
        raise TypeError(
            f"data is a {type(data).__name__} of {len(data)}: give x_0 alone, the "
            "array data[0] of a pair (x_0, cond)"
        )
    rows = np.asarray(data)
    check_floating("data", rows)
    check_finite("data", rows)
    if per_column is None:
        per_column = rows.ndim == 2 or rows.ndim >= 4
    if per_column and rows.ndim < 2:
        raise ValueError(
            f"per_column=True for data of shape {rows.shape}: an example has no "
            "axis. Leave per_column out"
        )
    axes = (0, *range(2, rows.ndim)) if per_column else None
    mean = rows.mean(axes, dtype=np.float64)
    scale = rows.std(axes, dtype=np.float64)
    # A column that varies only by rounding gets the mean scale of the others.
    varies = scale > 4.0 * float(jnp.finfo(rows.dtype).eps) * np.abs(mean)
    if not varies.any():
        raise ValueError(
            "data are constant, with a standard deviation of 0: there is nothing to "
            "learn"
        )
    scale = np.where(varies, scale, np.sqrt(np.mean(scale[varies] ** 2)))
    return np.asarray(mean), scale


def per_column_values(name: str, value: Any) -> PerColumn:
    """Return one Python number, or a tuple of them, which jit compares by value.

    **Raises:** `ValueError` for more axes or numbers that are not finite.
    """
    array = np.asarray(value, dtype=float)
    if array.ndim > 1 or not np.isfinite(array).all():
        raise ValueError(
            f"{name}={value}: give a finite number, or one for each index of the "
            "leading axis of an example (columns of a vector, channels of an image)"
        )
    return float(array) if array.ndim == 0 else tuple(float(a) for a in array)
