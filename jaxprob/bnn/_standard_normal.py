"""Draws of standard normal noise at the speed of the machine.

On CPU, noise is most of what a variational step costs. JAX's default generator runs its
rounds as a loop there, over arrays in memory; its Philox is one pass. And XLA repeats
the work of a draw in each kernel that reads it: forwards, backwards, in every moment of
the optimiser, and of a bias in each row of the batch.
"""

import math
from typing import Any

import jax
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
    # On CPU XLA stores what a loop gives, and computes nothing else just once. On a GPU
    # a loop costs more than the draw. The bits are the same.
    over = jax.lax.map if jax.default_backend() == "cpu" else _side_by_side
    halves = over(
        lambda key: jax.random.normal(key, (half,), dtype),
        jax.random.split(philox(key)),
    )
    return halves.reshape(-1)[:size].reshape(shape)


def _side_by_side(draw, keys):
    return jax.vmap(draw)(keys)
