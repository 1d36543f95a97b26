"""Bits per dimension of data that were integers."""

import math

import jax
from jaxtyping import Array, Float

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._schedule.argument_checks import as_example
from .._types import Numbers


def bits_per_dim(
    log_density: Float[Array, "..."], dim: int, bin_width: float
) -> Float[Array, "..."]:
    r"""Return bits per dimension of data that were dequantised uniformly.

    $$-\frac{\log p + d \log w}{d \log 2}$$

    is an upper bound of the code length of the integers, where w is the width of one
    integer in the units of the density: 1/(standard deviation in grey values) for
    standardised images, 1/256 for images divided by 256.

    Reference: *A note on the evaluation of generative models*, Theis et al., 2016.

    **Arguments:**

    - `log_density`: in nats, of the dequantised data; see `dequantise`.
    - `dim`: numbers in an example.
    - `bin_width`: w.
    """
    _check_width(bin_width)
    return -(log_density + dim * math.log(bin_width)) / (dim * math.log(2.0))


def dequantise(x: Numbers, bin_width: float, *, key: PRNGKey) -> Float[Array, "..."]:
    """Return each value plus a uniform number within half a bin.

    Integers become floats: grey values of 0 to 255 have bins of width 1.
    """
    _check_width(bin_width)
    check_key(key)
    x = as_example("x", x)
    half = bin_width / 2.0
    return x + jax.random.uniform(key, x.shape, x.dtype, -half, half)


def _check_width(bin_width):
    if not 0.0 < bin_width < math.inf:
        raise ValueError(
            f"bin_width={bin_width}: the width of one integer in the data's units, "
            "1/std for grey values that were standardised by their std"
        )
