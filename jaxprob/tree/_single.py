"""Single precision at least, where half precision would lose the numbers."""

from typing import Any

import jax.numpy as jnp


def single(array: Any) -> Any:
    """An array, or one like it, in single precision at least.

    Half precision has eight bits: small steps vanish in it, sums over many weights and
    running averages are lost, and no matrix has a root.
    """
    half = (
        jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits < 32
    )
    return array.astype(jnp.float32) if half else array
