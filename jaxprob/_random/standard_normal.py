"""Standard normal noise, drawn in one pass.

On CPU, noise is most of what a variational step costs, for three reasons. JAX's default
generator, Threefry, runs its rounds as a loop over arrays in memory there; of the two
words that it makes, a draw of single precision uses one; and XLA repeats the work of a
draw in each kernel that reads it: forwards, backwards, in every moment of the
optimiser, and of a bias in each row of the batch. Here the rounds are one pass, two
words are two numbers (Box and Muller), and both are kept.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex64, Float, UInt32

from .._types import PRNGKey

_OURS = ("threefry2x32", "philox4x32")  # both have keys of 64 bits


def philox(key: PRNGKey) -> PRNGKey:
    """A key of the default generator as one of JAX's Philox, with the same bits.

    Both are counter-based, with keys of 64 bits, and right under `vmap` and sharding;
    keys are derived from a Philox key in one pass. A key of a kind that the user chose
    stays as it is.
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

    In double precision, and under a key of a kind that the user chose, they are those
    of `jax.random.normal`.

    **Arguments:**

    - `key`: of this draw.
    - `shape`, `dtype`: of the result.
    """
    size = math.prod(shape)
    if dtype == jnp.float64 or str(jax.random.key_impl(key)) not in _OURS:
        keys = jax.random.split(philox(key))
        half = -(-size // 2)
        parts = computed_once(lambda i: jax.random.normal(keys[i], (half,), dtype))
    else:
        data = jax.random.key_data(key)
        quarter = -(-size // 4)

        def draw(i):
            counter = jnp.arange(quarter, dtype=jnp.uint32) + quarter * i
            return box_muller(*threefry(data, counter))

        pairs = computed_once(draw)
        parts = [part for pair in pairs for part in (pair.real, pair.imag)]
    return jnp.concatenate(parts)[:size].reshape(shape).astype(dtype)


def computed_once(draw: Callable[[Any], Array]) -> list[Array]:
    """`[draw(0), draw(1)]`, computed once however often they are used."""
    if jax.default_backend() != "cpu":
        # There a loop costs more than the draw. The bits are the same.
        return [draw(np.uint32(0)), draw(np.uint32(1))]

    # XLA stores what a loop carries, and computes nothing else just once. (What a loop
    # stacks it stores too, but works out on one core.)
    def body(i, halves):
        return [halves[1], draw(i)]

    shape = jax.eval_shape(draw, np.uint32(0))
    blank = jnp.zeros(shape.shape, shape.dtype)
    return lax.fori_loop(np.uint32(0), np.uint32(2), body, [blank, blank])


def threefry(
    key: UInt32[Array, "2"], counter: UInt32[Array, " num"]
) -> tuple[UInt32[Array, " num"], UInt32[Array, " num"]]:
    """Both words of Threefry-2x32 with 20 rounds, for counters below 2^32.

    They are those whose XOR `jax.random.bits` gives, in rounds written one after the
    other.

    Reference: *Parallel random numbers: as easy as 1, 2, 3*, Salmon, Moraes, Dror and
    Shaw, 2011.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    first, second = jnp.broadcast_to(keys[0], counter.shape), counter + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            first = first + second
            second = first ^ ((second << turn) | (second >> (32 - turn)))
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + np.uint32(group + 1)
    return first, second


def box_muller(
    first: UInt32[Array, " num"], second: UInt32[Array, " num"]
) -> Complex64[Array, " num"]:
    r"""Two normal numbers of two uniform words, as real and imaginary part.

    $$\sqrt{-2 \log u}\,(\cos \phi, \sin \phi)$$

    One word is the radius, up to 6.7; of the other, 30 bits are an angle of at most
    $\pi / 4$, where a short series is exact in single precision, and two bits swap the
    pair and turn it round. A pair of two arrays would be computed twice.

    Reference: *A note on the generation of random normal deviates*, Box and Muller,
    1958.
    """
    uniform = (first >> 1).astype(jnp.int32).astype(jnp.float32) * 2.0**-31 + 2.0**-32
    radius = jnp.sqrt(-2.0 * jnp.log(uniform))
    signed = lax.bitcast_convert_type(second << 2, jnp.int32).astype(jnp.float32)
    angle = signed * (math.pi * 2.0**-33)
    x = angle**2
    sine = angle * (1 - x / 6 * (1 - x / 20 * (1 - x / 42 * (1 - x / 72))))
    cosine = 1 - x / 2 * (1 - x / 12 * (1 - x / 30 * (1 - x / 56)))
    swapped = second >> 31 == 1
    radius = jnp.where((second >> 30) & 1 == 1, -radius, radius)
    return lax.complex(
        radius * jnp.where(swapped, sine, cosine),
        radius * jnp.where(swapped, cosine, sine),
    )
