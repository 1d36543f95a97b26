"""Lowering of the upper half of an integer product, for programs of several devices.

jaxlib 0.10.2 cannot partition `chlo.mulhi`: any draw under a Philox key on a mesh fails
with "Unable to convert MHLO to StableHLO". JAX itself lowered the operation by others
before jaxlib had it; here half-words are multiplied, which is exact in 32 bits too.
"""

import functools

import jax
import jax.numpy as jnp
from jax.interpreters import mlir
from jaxtyping import Array, Shaped


def high_product(
    x: Shaped[Array, "..."], y: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
    """Return the upper half of `x * y` in twice the bits, of unsigned integers."""
    bits = jnp.iinfo(x.dtype).bits // 2
    half = jnp.asarray(bits, x.dtype)
    mask = jnp.asarray(2**bits - 1, x.dtype)
    x_low, x_high, y_low, y_high = x & mask, x >> half, y & mask, y >> half
    middle, other = x_low * y_high, x_high * y_low
    carry = ((x_low * y_low) >> half) + (middle & mask) + (other & mask)
    return x_high * y_high + (middle >> half) + (other >> half) + (carry >> half)


@functools.cache
def partition_high_products() -> None:
    """Let programs that are compiled from now on have products that XLA partitions.

    The bits are the same.
    """

    def product(x, y):
        if jnp.issubdtype(x.dtype, jnp.unsignedinteger):
            return high_product(x, y)
        # Of negative numbers the upper half is less by the other factor.
        wide = x.astype(_unsigned(x)), y.astype(_unsigned(y))
        upper = high_product(*wide).astype(x.dtype)
        zero = jnp.zeros_like(x)
        return upper - jnp.where(x < 0, y, zero) - jnp.where(y < 0, x, zero)

    lowering = mlir.lower_fun(product, multiple_results=False)
    mlir.register_lowering(jax.lax.mulhi_p, lowering)


def _unsigned(x):
    return jnp.dtype(f"uint{jnp.iinfo(x.dtype).bits}")
