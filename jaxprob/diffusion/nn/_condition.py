"""How "no condition" is said inside a batch, where every row has one."""

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def no_condition(cond: PyTree) -> PyTree:
    """A condition of the same shape that means none: -1 in integers, NaN in floats.

    Rows of a batch differ in whether their condition is left out, and the two calls of
    classifier-free guidance are one batch, so it cannot be `None`. `Embedding` reads it
    as `None`; a network of your own has to know it.
    """

    def nothing(leaf):
        leaf = jnp.asarray(leaf)
        empty = -1 if jnp.issubdtype(leaf.dtype, jnp.integer) else jnp.nan
        return jnp.full_like(leaf, empty)

    return jax.tree.map(nothing, cond)
