"""Gaussian leaves in the places of a model's arrays."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..._checks import path_name
from ..._types import Model, Where
from .choice import choose, nothing_random
from .initial_scale import initial_scale
from .random_leaves import Gaussian, is_random, mean_leaves, random_leaves
from .unconstrained import is_unconstrained


def randomise(
    model: Model,
    where: Where | None = None,
    *,
    scale: float | Callable[[str, Array], Any] = 0.1,
) -> PyTree:
    """Return the model with a `Gaussian` for each chosen array.

    **Arguments:** as for `bayesianize`, which makes a posterior of the result.

    **Raises:** `ValueError` when nothing is chosen or a scale is not positive,
    `TypeError` for a complex leaf.
    """
    flags = choose(mean_leaves(model), where)

    def place(path, node, flag):
        if is_unconstrained(node):
            inner = place(path, node.coordinates, any(jax.tree.leaves(flag)))
            return eqx.tree_at(lambda n: n.coordinates, node, inner)
        if is_random(node) or not flag:
            return node
        name = path_name(path)
        if jnp.iscomplexobj(node):
            raise TypeError(
                f"{name} is {node.dtype}: a Gaussian leaf is real. Leave it out of "
                "`where`, or store its real and imaginary parts."
            )
        # A NumPy array may be in double precision, which JAX would warn about later.
        node = jnp.asarray(node)
        return Gaussian.of(node, initial_scale(scale, name, node))

    out = jax.tree_util.tree_map_with_path(
        place, model, flags, is_leaf=lambda n: is_random(n) or is_unconstrained(n)
    )
    if not random_leaves(out):
        raise nothing_random("where", where, model)
    return out
