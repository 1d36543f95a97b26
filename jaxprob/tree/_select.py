"""Choice of the leaves that `where` means."""

import fnmatch

import equinox as eqx
import jax
from jaxtyping import PyTree

from .._checks import path_name
from .._types import Model, Where
from ._paths import listing, paths


def select(tree: Model, where: Where) -> PyTree[bool]:
    """Return a tree of bools, `True` at the inexact arrays that `where` means.

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


def partition(tree: Model, where: Where) -> tuple[Model, Model]:
    """Cut a tree in two, `where` and the rest; `eqx.combine` joins them."""
    return eqx.partition(tree, select(tree, where))


def freeze(tree: Model, where: Where) -> PyTree[bool]:
    """Return the tree of bools that trains everything but `where`.

    ```python
    learner = GradientDescent(loss, optimizer, trainable=freeze(model, "embedding"))
    ```
    """
    return jax.tree.map(
        lambda leaf, frozen: eqx.is_inexact_array(leaf) and not frozen,
        tree,
        select(tree, where),
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
            f"where={pattern!r} means no leaf of the tree. Its leaves: {listing(tree)}"
        )
    _reject_integers(hits, pattern)
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


def _reject_integers(hits, pattern):
    arrays = {name: leaf for name, leaf in hits.items() if eqx.is_array(leaf)}
    if arrays and not any(eqx.is_inexact_array(leaf) for leaf in arrays.values()):
        name, leaf = next(iter(arrays.items()))
        raise ValueError(
            f"where={pattern!r} means only arrays without a gradient: {name} is "
            f"{leaf.dtype}{list(leaf.shape)}. Make it floating (jnp.full(shape, -3) "
            "is an integer, jnp.full(shape, -3.0) is not)."
        )
