"""Names of places in a tree."""

from typing import Any

import jax


def path_name(path: tuple[Any, ...]) -> str:
    """A path of JAX's as `"layers.0.weight"`; `""` for the whole tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".")
