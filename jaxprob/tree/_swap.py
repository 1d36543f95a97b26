"""Parts of a tree exchanged for others."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax

from .._types import Model
from ._paths import get


def swap(tree: Model, where: str | type, replace: Callable[[Any], Any]) -> Model:
    """Return the tree with `replace(part)` for each part that `where` means.

    ```python
    model = swap(model, eqx.nn.Linear, lambda linear: BayesianLinear.of(linear))
    model = swap(model, "layers.0", lambda _: eqx.nn.Identity())
    ```

    **Arguments:**

    - `tree`: any pytree.
    - `where`: the path of one part, or a type: every outermost module of that type.
    - `replace`: gives the new part for the old one.

    **Returns:** a new tree; the old one is as it was.

    **Raises:** `ValueError` when `where` is not in the tree.
    """
    if isinstance(where, str):
        return eqx.tree_at(
            lambda t: get(t, where),
            tree,
            replace_fn=replace,
            is_leaf=lambda x: x is None,
        )
    if not isinstance(where, type):
        raise TypeError(f"where={where!r}: swap takes a path or a module type")

    def is_kind(node):
        return isinstance(node, where)

    if not any(map(is_kind, jax.tree.leaves(tree, is_leaf=is_kind))):
        raise ValueError(f"where={where.__name__}: the tree holds no such module")
    return jax.tree.map(
        lambda node: replace(node) if is_kind(node) else node, tree, is_leaf=is_kind
    )
