"""Random signs, of one bit each."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import PRNGKey
from .standard_normal import computed_once, philox


def random_signs(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "..."]:
    """Independent 1 and -1 with equal probability: 32 of them cost one random number.

    **Arguments:**

    - `key`: of this draw.
    - `shape`, `dtype`: of the result.
    """
    size = math.prod(shape)
    half = -(-size // 64)
    keys = jax.random.split(philox(key))
    words = jnp.concatenate(computed_once(lambda i: jax.random.bits(keys[i], (half,))))
    bits = (words[:, None] >> jnp.arange(32, dtype=words.dtype)[None]) & 1
    return (1 - 2 * bits.ravel()[:size].astype(dtype)).reshape(shape)
