"""The report of a broken clause of a contract, and comparisons of trees."""

from typing import Any

import equinox as eqx
import jax
import numpy as np


class ContractError(AssertionError):
    """Error of an object that does not keep the contract of its base class.

    The message names the clause, what was found and what is required.
    """


def require(holds: Any, who: Any, clause: str) -> None:
    """Raise `ContractError` unless a clause holds.

    **Arguments:**

    - `holds`: the result of the check.
    - `who`: the object.
    - `clause`: what is required, and what was found.
    """
    if not holds:
        raise ContractError(f"{type(who).__name__}: {clause}")


def signature(tree: Any) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    """Return structure, shapes and dtypes of a tree."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
    return jax.tree.structure(tree), [(leaf.shape, str(leaf.dtype)) for leaf in leaves]


def changed(first: Any, second: Any) -> list[str]:
    """Return the paths of leaves in which two trees of one structure differ."""
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(first),
        jax.tree.leaves(second),
        strict=True,
    )
    return [jax.tree_util.keystr(path) for (path, a), b in pairs if not _same(a, b)]


def _same(a, b):
    if not (eqx.is_array(a) and eqx.is_array(b)):
        return a is b or a == b
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")


def finite(tree: Any) -> bool:
    """Return whether all floating-point arrays of a tree are finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if eqx.is_inexact_array(leaf)]
    return all(bool(np.isfinite(np.asarray(leaf, np.float64)).all()) for leaf in floats)
