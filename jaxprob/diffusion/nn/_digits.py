"""In which dtype sums are taken."""

import jax.numpy as jnp


def wide(dtype) -> jnp.dtype:
    """At least float32: means and variances in bfloat16 would lose all their digits."""
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)
