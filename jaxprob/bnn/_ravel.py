"""Leaves in a precision that can be computed with, and as one vector.

Half precision has eight bits: small steps vanish in it, sums over many weights and
running variances are lost, and no matrix has a root.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree


def single(array: Any) -> Any:
    """An array, or one like it, in single precision at least."""
    half = (
        jnp.issubdtype(array.dtype, jnp.floating) and jnp.finfo(array.dtype).bits < 32
    )
    return array.astype(jnp.float32) if half else array


def ravel(
    params: PyTree,
) -> tuple[Float[Array, " dim"], Callable[[Float[Array, " dim"]], PyTree]]:
    """The leaves of a tree as one vector, of single precision at least.

    The leaves get their own dtype where they are put back.

    **Returns:** the vector, and what makes a tree like `params` of such a vector.
    """
    vector, unravel = ravel_pytree(params)
    dtype = vector.dtype
    return single(vector), lambda vector: unravel(vector.astype(dtype))
