"""A batch as it comes from a loader, made one that a compiled step takes.

Tensors, lists of numbers and Python scalars become NumPy arrays. What is no array, such
as text, stays outside of the program: its place holds a `LeftOut`, which says so when
the loss uses it. Callbacks and the hooks of a module see the batch as the loader gave
it.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .batch import Batch


@jax.tree_util.register_static
@dataclass(frozen=True)
class LeftOut:
    """The place of a leaf of a batch that is no array.

    **Arguments:**

    - `path`: where it stands in the batch.
    - `kind`: what it is.
    """

    path: str
    kind: str

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(self._words())

    def _raise(self, *args: Any) -> NoReturn:
        raise TypeError(self._words())

    def _words(self):
        return (
            f"batch{self.path} is {self.kind}, which no compiled program takes. Encode "
            "it as numbers in the loader (text as integer tokens, names as row "
            "numbers; an object as a dict or tuple of arrays, or register its class, "
            "jax.tree_util.register_dataclass), or leave it out of what the loss reads"
        )

    __array__ = __jax_array__ = __len__ = __iter__ = __getitem__ = __bool__ = _raise
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _raise
    __truediv__ = __rtruediv__ = __matmul__ = __rmatmul__ = __pow__ = __neg__ = _raise


def host_batch(batch: PyTree) -> PyTree:
    """Return the batch with arrays of numbers as leaves, and `LeftOut` for all others.

    **Raises:** `ValueError` for an integer beyond the range of JAX's.
    """
    leaves, structure = jax.tree.flatten(batch)
    if all(map(_is_plain, leaves)):
        return batch
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(batch)]
    converted = [
        leaf if _is_plain(leaf) else _converted(jax.tree_util.keystr(path), leaf)
        for path, leaf in zip(paths, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, converted)


def count_rows(batch: PyTree) -> int:
    """Return how many rows of a batch on the host count, as `weight` in a program."""
    if isinstance(batch, Batch):
        return int(np.sum(np.asarray(batch.mask)))
    for leaf in jax.tree.leaves(batch):
        shape: Any = getattr(leaf, "shape", ())
        if len(shape):
            return int(shape[0])
    return 1


def _is_plain(leaf):
    if isinstance(leaf, np.ndarray):
        return _holds_numbers(leaf.dtype)
    return isinstance(leaf, jax.Array)


def _holds_numbers(dtype):
    # Types beside NumPy's own, such as bfloat16, are of kind "V", as records are.
    return dtype.kind in "biufc" or (
        dtype.kind == "V" and jnp.issubdtype(dtype, jnp.number)
    )


def _converted(path, leaf):
    if isinstance(leaf, bool | int | float | complex):
        dtype = jax.dtypes.canonicalize_dtype(np.result_type(type(leaf)))
        try:
            return np.asarray(leaf, dtype)
        except OverflowError:
            raise ValueError(
                f"batch{path} is {leaf}, beyond the range of {dtype}: give it as a "
                "float, or begin the program with "
                "jax.config.update('jax_enable_x64', True)"
            ) from None
    if isinstance(leaf, str | bytes):
        return LeftOut(path, f"text ({type(leaf).__name__})")
    array = _as_numpy(leaf)
    if array is None or not _holds_numbers(array.dtype):
        kind = f"a {type(leaf).__name__}"
        if isinstance(leaf, np.ndarray):
            kind = f"an array of dtype {leaf.dtype}"
        return LeftOut(path, kind)
    return array


def _as_numpy(leaf):
    if hasattr(leaf, "detach") and hasattr(leaf, "cpu"):  # a tensor of torch
        tensor = leaf.detach().cpu()
        try:
            return tensor.numpy()
        except TypeError:  # NumPy has no bfloat16
            return tensor.float().numpy().astype(jnp.bfloat16)
    try:
        return np.asarray(leaf)
    except (TypeError, ValueError):
        return None
