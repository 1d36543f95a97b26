"""Typed keys of JAX in objects that are copied or pickled.

Python cannot pickle a typed key. In a pickle it is replaced by the integers that it
consists of, with the name of its kind.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from ..._io.arrays import as_numpy, describe_array, restore_array
from ..._random.keys import is_key


class KeyNumbers(NamedTuple):
    """A typed key as plain data.

    **Arguments:**

    - `numbers`: the integers.
    - `description`: from `describe_array`.
    """

    numbers: np.ndarray
    description: dict[str, Any]


def is_key_numbers(x: Any) -> bool:
    return isinstance(x, KeyNumbers)


def without_keys(tree: PyTree) -> PyTree:
    """Return a tree that can be pickled, with numbers instead of typed keys."""

    def numbers(leaf):
        return KeyNumbers(as_numpy(leaf), describe_array(leaf))

    return jax.tree.map(lambda leaf: numbers(leaf) if is_key(leaf) else leaf, tree)


def with_keys(tree: PyTree) -> PyTree:
    """Return the tree that `without_keys` was given."""

    def key(leaf):
        return restore_array("key", *leaf) if is_key_numbers(leaf) else leaf

    return jax.tree.map(key, tree, is_leaf=is_key_numbers)
