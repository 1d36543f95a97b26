"""The dtype of sums."""

import jax.numpy as jnp


def wide(dtype) -> jnp.dtype:
    """Return a dtype of at least 32 bits: sums in bfloat16 would lose their digits."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
