"""New draws of an initialisation whose distribution is unknown."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._random.keys import leaf_keys
from ..._types import Model, PRNGKey
from .._weights.random_leaves import is_random


def shuffled(model: Model, trained: PyTree[bool]) -> Callable[[PRNGKey], Model]:
    """Return `make(key)`, the model with the entries of each trained array shuffled.

    If the entries are independent draws from a distribution, they are so afterwards.

    **Arguments:**

    - `model`: at its initialisation.
    - `trained`: a flag for each array, or random leaf, that moves.
    """
    moves = jax.tree.map(
        lambda node, flag: jax.tree.map(lambda _: flag or is_random(node), node),
        model,
        trained,
        is_leaf=is_random,
    )

    def start(a, moves, key):
        if not moves or not eqx.is_inexact_array(a):
            return a
        return jax.random.permutation(key, a.ravel()).reshape(a.shape)

    return lambda key: jax.tree.map(start, model, moves, leaf_keys(key, model))
