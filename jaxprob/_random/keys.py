"""Keys, always by `fold_in`: a key depends on what it is for and on nothing else.

`jax.random.split(key, n)[i]` changes with `n`; `fold_in(key, i)` does not. So noise of
example i is the same whatever the batch size. (The small leaves of one posterior share
a draw: `bnn/_together.py`.)
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from .._types import PRNGKey


def is_key(x: Any) -> bool:
    """Return whether `x` is an array of typed keys."""
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(
        x.dtype, jax.dtypes.prng_key
    )


def check_key(key: Any) -> None:
    """Reject what is not a key, such as a seed.

    **Raises:** `TypeError` with what to write.
    """
    raw = getattr(key, "dtype", None) == jnp.uint32 and jnp.ndim(key) == 1
    if not (raw or is_key(key)):
        seed = key if isinstance(key, int) else 0
        raise TypeError(f"key={key!r}: give a key of JAX's, jax.random.key({seed})")


def example_keys(
    key: PRNGKey, num_keys: int, *, start: int = 0
) -> Key[Array, " num_keys"]:
    """Return keys of the examples from `start` on: `fold_in(key, i)` for example i.

    **Arguments:**

    - `key`: the key of the whole batch.
    - `num_keys`: number of examples.
    - `start`: index of the first one, for work that is done in chunks.

    **Returns:** `num_keys` keys, one along the leading axis for each example.
    """
    check_key(key)
    index = jnp.arange(start, start + num_keys, dtype=jnp.uint32)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def leaf_keys(key: PRNGKey, tree: PyTree, *, is_leaf=None) -> PyTree[PRNGKey]:
    """Return a tree that holds one key for each leaf: `fold_in(key, position)`.

    **Arguments:**

    - `key`: the key of the whole tree.
    - `tree`: any pytree.
    - `is_leaf`: as in `jax.tree.map`.

    **Returns:** the tree of keys, no two of them alike.
    """
    check_key(key)
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_leaf)
    keys = [jax.random.fold_in(key, i) for i in range(len(leaves))]
    return jax.tree.unflatten(structure, keys)


def step_key(key: PRNGKey, step: int | Int[Array, ""]) -> PRNGKey:
    """Return the key of one optimiser step: `fold_in(key, step)`, inside jit too."""
    return jax.random.fold_in(key, step)


def as_seed(key: PRNGKey) -> int:
    """Return a seed for NumPy, for the host side of a run: 32 bits of `key`."""
    return int(jax.random.bits(key, dtype=jnp.uint32))
