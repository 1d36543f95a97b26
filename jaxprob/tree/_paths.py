"""Leaves and parts of a tree by their path."""

from typing import Any

import jax
from jaxtyping import PyTree

from .._checks import path_name
from .._types import Model


def paths(tree: PyTree) -> dict[str, Any]:
    """Return leaves by path, `{"layers.0.weight": Array, ...}`, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def get(tree: Model, path: str) -> Any:
    """Return the part of a tree at `path`: `get(model, "layers.0.weight")`.

    **Raises:** `ValueError` when there is nothing at the path, with what there is.
    """
    node = tree
    walked: list[str] = []
    for step in path.split(".") if path else []:
        try:
            node = _child(node, step)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            inside = ".".join(walked) or "the tree"
            raise ValueError(
                f"path {path!r}: {inside} ({type(node).__name__}) has no {step!r}. "
                f"Leaves: {listing(tree)}"
            ) from None
        walked.append(step)
    return node


def listing(tree: PyTree, most: int = 12) -> str:
    """Return the first paths of a tree, for an error."""
    names = list(paths(tree))
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _child(node, step):
    if isinstance(node, list | tuple):
        return getattr(node, step) if hasattr(node, step) else node[int(step)]
    if isinstance(node, dict):
        return node[step] if step in node else node[int(step)]
    return getattr(node, step)
