"""Chosen leaves as one vector, and its length."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from .._types import Model, Where
from ._select import partition


def ravel(
    tree: Model, where: Where = True
) -> tuple[Float[Array, " dim"], Callable[[Float[Array, " dim"]], Model]]:
    """Return all chosen leaves as one vector, and the function that puts one back.

    **Arguments:**

    - `tree`: any pytree.
    - `where`: which leaves; all inexact arrays by default.

    **Returns:** `(vector, unravel)`; `unravel(vector)` is the whole tree again.
    """
    params, rest = partition(tree, where)
    vector, unravel = ravel_pytree(params)
    return vector, lambda vector: eqx.combine(unravel(vector), rest)


def count(tree: Model, where: Where = True) -> int:
    """Return how many numbers the chosen leaves hold: a model's parameter count."""
    params, _ = partition(tree, where)
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
