"""Standard deviations from which random leaves start."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array

from .scale import is_traced


def fan_in(leaf: Any) -> int:
    """Return how many numbers each output sums: 1 for a bias, else the axes past 0."""
    return max(1, math.prod(leaf.shape[1:]))


def initial_scale(
    scale: float | Callable[[str, Array], Any], path: str, leaf: Array
) -> Any:
    """Return the standard deviation from which a leaf starts.

    **Arguments:**

    - `scale`: a number, which is divided by the square root of the fan-in; or a
        function `(path, leaf) -> standard deviation`, whose result is used unchanged.
    - `path`, `leaf`: of the leaf.

    **Raises:** `ValueError` for a standard deviation that is not positive.
    """
    if callable(scale):
        value = scale(path, leaf)
        if not is_traced(value) and not (np.asarray(value) > 0).all():
            raise ValueError(
                f"scale gives {value} for {path}: a standard deviation is positive. To "
                "leave the leaf as it is, leave it out of `where`."
            )
        return value
    if not scale > 0:
        raise ValueError(f"scale={scale}: a standard deviation is positive")
    return scale / fan_in(leaf) ** 0.5
