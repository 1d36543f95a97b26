"""JAX arrays as torch tensors and back, bit for bit, for checkpoints.

Torch reads a checkpoint with `weights_only=True`: tensors, strings and numbers pass,
NumPy arrays, JAX arrays and classes of ours do not. So every array goes in as a tensor
with the same bits; types that NumPy knows only as bytes (bfloat16, float8) travel as
unsigned integers of their width.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import PyTree

from .._keys import is_key
from .._path_name import path_name
from ._errors import CheckpointMismatchError

_NATIVE = {
    "bool": torch.bool,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}
_AS_BITS = {
    "bfloat16": torch.bfloat16,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}
_BITS = {1: torch.uint8, 2: torch.int16}


def to_torch(x: Any) -> torch.Tensor:
    """A tensor with the bits of `x`, in memory of its own.

    It must be a copy: a training step donates the array's buffer, and an asynchronous
    checkpoint writer reads the tensor after that.
    """
    array = np.array(jax.random.key_data(x) if is_key(x) else x)
    name = array.dtype.name
    if name in _NATIVE:
        return torch.from_numpy(array)
    if name in _AS_BITS:
        bits = array.view(np.uint8 if array.itemsize == 1 else np.int16)
        return torch.from_numpy(bits).view(_AS_BITS[name])
    raise TypeError(
        f"an array of dtype {name} has no torch counterpart, so it cannot be kept in a "
        "checkpoint: keep it in a wider dtype"
    )


def dtype_name(tensor: torch.Tensor) -> str:
    """As NumPy calls it."""
    return str(tensor.dtype).removeprefix("torch.")


def from_torch(name: str, tensor: torch.Tensor, like: Any) -> Any:
    """The array that `to_torch` was given; `like` says what is expected.

    **Raises:** `CheckpointMismatchError`, naming the leaf, for another shape or dtype.
    """
    expected = jax.random.key_data(like) if is_key(like) else like
    found = dtype_name(tensor)
    if tuple(tensor.shape) != tuple(expected.shape) or found != expected.dtype.name:
        wide = found == "float64" and not jax.config.jax_enable_x64  # pyright: ignore
        raise CheckpointMismatchError(
            f"leaf {name}: the checkpoint holds {found}{list(tensor.shape)}, the "
            f"module expects {expected.dtype.name}{list(expected.shape)}. Build the "
            "module with the settings that the checkpoint was written with, and the "
            "Trainer with its precision"
            + ", after jax.config.update('jax_enable_x64', True)"
            * wide
        )
    tensor = tensor.detach().cpu().contiguous()
    if found in _AS_BITS:
        array = tensor.view(_BITS[tensor.element_size()]).numpy().view(expected.dtype)
    else:
        array = tensor.numpy()
    array = jnp.array(array, copy=True)
    if is_key(like):
        return jax.random.wrap_key_data(array, impl=jax.random.key_impl(like))
    return array


def leaf_names(tree: PyTree) -> dict[str, Any]:
    """The arrays of a tree by path, `{"model.layers.0.weight": Array}`."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {path_name(path): leaf for path, leaf in leaves}


def pack(tree: PyTree) -> dict[str, torch.Tensor]:
    """Every array of a tree as a tensor, by path."""
    return {name: to_torch(leaf) for name, leaf in leaf_names(tree).items()}


def unpack(tree: PyTree, tensors: Mapping[str, torch.Tensor]) -> PyTree:
    """`tree` with the arrays that `tensors` names; the others stay."""

    def replace(path, leaf):
        name = path_name(path)
        if not eqx.is_array(leaf) or name not in tensors:
            return leaf
        return from_torch(name, tensors[name], leaf)

    return jax.tree_util.tree_map_with_path(replace, tree)
