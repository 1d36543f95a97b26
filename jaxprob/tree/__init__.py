"""Trees by path: choose leaves, freeze them, cut a tree in two, swap parts of it.

Every function takes a `where`, which says which leaves are meant:

- a **path**, `"layers.0.weight"`; the path of a part means all leaves of that part;
  `*` stands for anything, `"*.bias"`;
- a **type** of module, `eqx.nn.Linear`: all leaves of modules of that type;
- a **predicate** `(path, leaf) -> bool`;
- a **tree of bools** like the model (or a prefix of it), as in `eqx.partition`;
- `True` or `False`: all or none;
- a **tuple** of these: whatever one of them means.

Only inexact (floating or complex) arrays are ever chosen: nothing else has a gradient.
Running statistics, the leaves of an `eqx.nn.State`, are never chosen: they are no
parameters.
"""

import fnmatch
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._jaxpr.activations import record
from ._model_card import ModelCard, model_card
from .._checks import path_name
from .._types import Model, Where

__all__ = [
    "activations",
    "count",
    "freeze",
    "get",
    "partition",
    "paths",
    "ravel",
    "select",
    "summary",
    "swap",
]


def paths(tree: PyTree) -> dict[str, Any]:
    """All leaves by path: `{"layers.0.weight": Array, ...}`, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_name(path): leaf for path, leaf in leaves}


def select(tree: Model, where: Where) -> PyTree[bool]:
    """A tree of bools like `tree`: `True` at the inexact arrays that `where` means.

    ```python
    params, rest = eqx.partition(model, jaxprob.tree.select(model, "layers.*"))
    ```

    **Arguments:**

    - `tree`: any pytree, often an Equinox module.
    - `where`: a path, type, predicate, tree of bools, bool, or a tuple of these.

    **Returns:** the tree of bools.

    **Raises:** `ValueError` when a path or type is not in the tree, or when all that it
    means are arrays of integers (which have no gradient, so would never be trained).
    """
    chosen = _select(tree, where)
    return jax.tree.map(
        lambda leaf, flag, held: bool(flag) and not held and eqx.is_inexact_array(leaf),
        tree,
        chosen,
        _held(tree),
    )


def _held(tree):
    """True at the running statistics."""

    def is_state(node):
        return isinstance(node, eqx.nn.State)

    return jax.tree.map(
        lambda node: jax.tree.map(lambda _: is_state(node), node),
        tree,
        is_leaf=is_state,
    )


def _select(tree, where):
    if isinstance(where, bool):
        return jax.tree.map(lambda _: where, tree)
    if isinstance(where, str):
        return _select_path(tree, where)
    if isinstance(where, type):
        return _select_type(tree, where)
    if _is_options(where):
        flags = [_select(tree, option) for option in where]
        return jax.tree.map(lambda _, *flag: any(flag), tree, *flags)
    if _is_bool_tree(where):
        return jax.tree.map(
            lambda flag, part: jax.tree.map(lambda _: bool(flag), part), where, tree
        )
    if callable(where):
        return _select_predicate(tree, where)
    raise TypeError(
        f"where={where!r} is no choice of leaves: give a path such as 'layers.0', a "
        "module type, a predicate (path, leaf) -> bool, a tree of bools, or a tuple "
        "of these"
    )


def _is_options(where):
    return isinstance(where, tuple) and all(
        isinstance(option, str | type) or callable(option) or isinstance(option, bool)
        for option in where
    )


def _is_bool_tree(where):
    leaves = jax.tree.leaves(where)
    return bool(leaves) and all(isinstance(leaf, bool) for leaf in leaves)


def _select_predicate(tree, predicate):
    if predicate is eqx.is_array or predicate is eqx.is_inexact_array:
        raise TypeError(
            f"where={predicate.__name__} takes a leaf alone; a predicate here takes "
            "(path, leaf). To choose every inexact array, write where=True."
        )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: bool(predicate(path_name(path), leaf)), tree
    )


def _matches(name, pattern):
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(
        name, pattern + ".*"
    )


def _select_path(tree, pattern):
    hits = {name: leaf for name, leaf in paths(tree).items() if _matches(name, pattern)}
    if not hits:
        raise ValueError(
            f"where={pattern!r} means no leaf of the tree. Its leaves: {_listing(tree)}"
        )
    _refuse_integers(hits, pattern)
    return jax.tree_util.tree_map_with_path(
        lambda path, _: _matches(path_name(path), pattern), tree
    )


def _select_type(tree, kind):
    def is_kind(node):
        return isinstance(node, kind)

    flags = jax.tree.map(
        lambda node: jax.tree.map(lambda _: is_kind(node), node), tree, is_leaf=is_kind
    )
    if not any(jax.tree.leaves(flags)):
        raise ValueError(f"where={kind.__name__}: the tree holds no such module")
    return flags


def _refuse_integers(hits, pattern):
    arrays = {name: leaf for name, leaf in hits.items() if eqx.is_array(leaf)}
    if arrays and not any(eqx.is_inexact_array(leaf) for leaf in arrays.values()):
        name, leaf = next(iter(arrays.items()))
        raise ValueError(
            f"where={pattern!r} means only arrays without a gradient: {name} is "
            f"{leaf.dtype}{list(leaf.shape)}. Make it floating (jnp.full(shape, -3) "
            "is an integer, jnp.full(shape, -3.0) is not)."
        )


def _listing(tree, most=12):
    names = list(paths(tree))
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def partition(tree: Model, where: Where) -> tuple[Model, Model]:
    """Cuts a tree in two, `(what where means, the rest)`; `eqx.combine` joins them."""
    return eqx.partition(tree, select(tree, where))


def freeze(tree: Model, where: Where) -> PyTree[bool]:
    """The tree of bools that trains everything but `where`.

    ```python
    learner = GradientDescent(loss, optimizer, trainable=freeze(model, "embedding"))
    ```
    """
    return jax.tree.map(
        lambda leaf, frozen: eqx.is_inexact_array(leaf) and not frozen,
        tree,
        select(tree, where),
    )


def get(tree: Model, path: str) -> Any:
    """The part of a tree at `path`: `get(model, "layers.0.weight")`.

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
                f"Leaves: {_listing(tree)}"
            ) from None
        walked.append(step)
    return node


def _child(node, step):
    if isinstance(node, list | tuple):
        return getattr(node, step) if hasattr(node, step) else node[int(step)]
    if isinstance(node, dict):
        return node[step] if step in node else node[int(step)]
    return getattr(node, step)


def swap(tree: Model, where: str | type, replace: Callable[[Any], Any]) -> Model:
    """Surgery: puts `replace(part)` in the place of each part that `where` means.

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


def activations(
    tree: Model, where: str | type | tuple[str | type, ...], *args: Any, **kwargs: Any
) -> tuple[Any, dict[str, list[Any]]]:
    """Calls a model, and gives beside its output what parts of it gave on the way.

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


def ravel(
    tree: Model, where: Where = True
) -> tuple[Float[Array, " dim"], Callable[[Float[Array, " dim"]], Model]]:
    """All chosen leaves as one vector, and the function that puts a vector back.

    **Arguments:**

    - `tree`: any pytree.
    - `where`: which leaves; all inexact arrays by default.

    **Returns:** `(vector, unravel)`; `unravel(vector)` is the whole tree again.
    """
    params, rest = partition(tree, where)
    vector, unravel = ravel_pytree(params)
    return vector, lambda vector: eqx.combine(unravel(vector), rest)


def count(tree: Model, where: Where = True) -> int:
    """How many numbers the chosen leaves hold: the parameter count of a model."""
    params, _ = partition(tree, where)
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))


def summary(
    tree: Model,
    *,
    random: Where = False,
    frozen: Where = False,
    depth: int | None = 2,
) -> ModelCard:
    """A card of any model: its parts, their parameters by role, and their memory.

    ```python
    print(jaxprob.tree.summary(model, random="layers.*.weight"))
    ```

    **Arguments:**

    - `tree`: any pytree.
    - `random`: leaves with a posterior; `bnn.Gaussian` means those of `bayesianize`.
    - `frozen`: leaves that are not trained. All others are points, to be optimised.
    - `depth`: levels of parts to list; `None` for all.

    **Returns:** a `ModelCard`, which prints as a table.
    """
    chosen = {"random": random, "frozen": frozen, "point": True}
    flags = {name: paths(select(tree, where)) for name, where in chosen.items()}
    both = [
        path for path, flag in flags["random"].items() if flag and flags["frozen"][path]
    ]
    if both:
        raise ValueError(f"random and frozen both mean the leaf {both[0]}")

    def role(path):
        return next((name for name in chosen if flags[name][path]), None)

    return model_card(tree, role, depth)
