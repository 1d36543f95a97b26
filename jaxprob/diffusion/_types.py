r"""Names for what recurs in signatures.

`level` is $\sigma_t/\alpha_t$ and `sigma` is $\sigma_t$, everywhere in this package.
"""

from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Float, Num, PyTree

Time: TypeAlias = float | Float[Array, ""]
"""One time, between the schedule's `t_min` and `t_max`."""

Level: TypeAlias = float | Float[Array, ""]
r"""One noise level $\sigma_t/\alpha_t$, in units of the data's standard deviation."""

Scalar: TypeAlias = Float[Array, ""]

Numbers: TypeAlias = Num[Array, "..."] | Num[np.ndarray, "..."] | list | tuple
"""One example as a user may have it; `as_example` makes an array of floats of it."""

ARRAYS = (jax.Array, np.ndarray, np.generic)
"""Classes of arrays, for `isinstance`."""

Cond: TypeAlias = PyTree[Any]
"""The condition of one example, or `None`; only the network reads it."""
