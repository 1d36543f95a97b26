"""Trees whose arrays have a leading axis of members."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Integer, PyTree


def take(tree: PyTree, index: int | Integer[Array, ""]) -> PyTree:
    """Return the part of each array at one place of its leading axis."""
    return jax.tree.map(lambda a: a[index] if eqx.is_array(a) else a, tree)


def stack(trees: list[PyTree]) -> PyTree:
    """Return trees of one structure as one, arrays stacked along a new leading axis."""
    arrays, rest = zip(*(eqx.partition(t, eqx.is_array) for t in trees), strict=True)
    return eqx.combine(jax.tree.map(lambda *a: jnp.stack(a), *arrays), rest[0])


def one_by_one(function: Callable[..., PyTree], *args: PyTree) -> PyTree:
    """Return what `eqx.filter_vmap(function)(*args)` does, by a loop over members."""
    # A loop returns arrays alone, so all other leaves of the result come from outside.
    rest = eqx.filter(
        eqx.filter_eval_shape(function, *take(args, 0)),
        lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct),
    )
    arrays, static = eqx.partition(args, eqx.is_array)

    def one(arrays):
        return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

    return eqx.combine(jax.lax.map(one, arrays), rest)
