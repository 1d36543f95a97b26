"""Draws of standard normal noise at the speed of the machine.

On CPU, noise is most of what a variational step costs. JAX's default generator runs its
rounds as a loop there, over arrays in memory; its Philox is one pass. And XLA repeats
the work of a draw in each kernel that reads it: forwards, backwards, in every moment of
the optimiser, and of a bias in each row of the batch.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import PRNGKey


def philox(key: PRNGKey) -> PRNGKey:
    """A key of the default generator as one of JAX's Philox, with the same bits.

    Both are counter-based, with keys of 64 bits, and right under `vmap` and sharding.
    A key of a kind that the user chose stays as it is.
    """
    if str(jax.random.key_impl(key)) != "threefry2x32":
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl="philox4x32")


def like(key: PRNGKey, other: PRNGKey) -> PRNGKey:
    """A key made with `philox(other)`, as one of the kind of `other`.

    What a user's module is handed is of the kind that the user gave.
    """
    kind = jax.random.key_impl(other)
    if jax.random.key_impl(key) == kind:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=kind)


# Compiled by itself for a call outside of any program, where a loop over a new `body`
# would be compiled again for each draw; inside of one it is part of that program.
@functools.partial(jax.jit, static_argnames=("shape", "dtype"), inline=True)
def standard_normal(
    key: PRNGKey, shape: tuple[int, ...], dtype: Any
) -> Float[Array, "..."]:
    """Independent draws of N(0, 1), computed once however often they are used.

    **Arguments:**

    - `key`: of this draw.
    - `shape`, `dtype`: of the result.
    """
    size = math.prod(shape)
    if size < 2:
        return jax.random.normal(philox(key), shape, dtype)
    half = -(-size // 2)

    def draw(key):
        return jax.random.normal(key, (half,), dtype)

    keys = jax.random.split(philox(key))
    if jax.default_backend() == "cpu":
        # XLA stores what a loop carries, and computes nothing else just once. (What a
        # loop stacks it stores too, but works out on one core.)
        def body(i, halves):
            return halves[1], draw(keys[i])

        blank = jnp.zeros((half,), dtype)
        halves = jax.lax.fori_loop(0, 2, body, (blank, blank))
    else:
        # There a loop costs more than the draw. The bits are the same.
        halves = draw(keys[0]), draw(keys[1])
    return jnp.concatenate(halves)[:size].reshape(shape)
