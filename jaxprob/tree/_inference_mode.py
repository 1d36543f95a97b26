"""Models with dropout off and running statistics in use."""

import equinox as eqx
import jax

from .._types import Model


def inference_mode(model: Model) -> Model:
    """Return the model with every `inference` flag set, as Equinox's does.

    It serves a part of a model too, in which flags that were filtered out are `None`
    and stay so.
    """

    def flags(tree):
        def is_inner(node):
            return hasattr(node, "inference") and node is not tree

        found = [tree.inference] if hasattr(tree, "inference") else []
        # A module with a flag may hold others that have one too.
        for node in filter(is_inner, jax.tree.leaves(tree, is_leaf=is_inner)):
            found.extend(flags(node))
        return found

    return eqx.tree_at(
        flags,
        model,
        replace_fn=lambda flag: None if flag is None else True,
        is_leaf=lambda leaf: leaf is None,
    )
