"""Leaves as one vector, in a precision that can be computed with."""

from collections.abc import Callable

from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ._single import single


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
