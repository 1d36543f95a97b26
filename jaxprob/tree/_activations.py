"""Outputs of parts of a model on the way to its own."""

from typing import Any

import jax

from .._checks import path_name
from .._jaxpr.activations import record
from .._types import Model
from ._paths import get
from ._swap import swap


def activations(
    tree: Model, where: str | type | tuple[str | type, ...], *args: Any, **kwargs: Any
) -> tuple[Any, dict[str, list[Any]]]:
    """Call a model, and return its output and the outputs of some of its parts.

    ```python
    y, inner = activations(model, "layers.0", x)
    y, inner = activations(model, eqx.nn.Linear, x)
    (hidden,) = inner["layers.0"]
    ```

    It is a pure function of model and arguments: jit, vmap and differentiate it. Where
    the model itself maps a part over an axis, as attention does over a sequence, the
    whole mapped array is given.

    **Arguments:**

    - `tree`: the model, called as `tree(*args, **kwargs)`.
    - `where`: the path of a part, a module or a function such as `"activation"`; a
        type: every outermost module of that type; or several of these.

    **Returns:** the output; and for each part, by path, what it gave: a list with one
    entry for each time it was called.

    **Raises:** `ValueError` when a part is not in the tree, is not called, or is called
    where nothing comes out, as in the body of a `lax.scan`.
    """
    wheres = where if isinstance(where, tuple) else (where,)
    names = [name for option in wheres for name in _parts(tree, option)]
    # Outer parts are put in place before those inside of them.
    names.sort(key=lambda name: name.count("."))
    parts = {name: get(tree, name) for name in names}
    for name, part in parts.items():
        if not callable(part):
            raise ValueError(f"{name} is a {type(part).__name__}, which is not called")

    def call(heard):
        model = tree
        for name, part in heard.items():
            model = swap(model, name, lambda _, part=part: part)
        return model(*args, **kwargs)

    return record(parts, call)


def _parts(tree, where):
    """Paths of the parts that are meant."""
    if isinstance(where, str):
        return [where]
    if not isinstance(where, type):
        raise TypeError(f"where={where!r}: give a path or a module type")

    def is_kind(node):
        return isinstance(node, where)

    found = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_kind)
    names = [path_name(path) for path, node in found if is_kind(node)]
    if not names:
        raise ValueError(f"where={where.__name__}: the tree holds no such module")
    return names
