"""Names for what recurs in signatures."""

from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, Float, Num, PyTree

Time: TypeAlias = float | Float[Array, ""]
"""One time, between the schedule's `t_min` and `t_max`."""

Scalar: TypeAlias = Float[Array, ""]

Numbers: TypeAlias = Num[Array, "..."] | Num[np.ndarray, "..."] | list | tuple
"""One example as a user may have it; `as_example` makes an array of floats of it."""

Cond: TypeAlias = PyTree[Any]
"""What one example is conditioned on, or `None`; the network alone reads it."""
