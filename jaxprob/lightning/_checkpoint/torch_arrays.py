"""JAX arrays as torch tensors and back, bit for bit, for checkpoints.

Torch reads a checkpoint with `weights_only=True`: tensors, strings and numbers pass,
NumPy arrays, JAX arrays and our classes do not. So every array is stored as a tensor
with the same bits. This is the torch view of the codec in `_io/arrays.py`.
"""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np
import torch
from jaxtyping import PyTree

from ..._checks import path_name
from ..._io.arrays import as_numpy, describe_array, restore_array, unsigned
from ..._random.keys import is_key
from .._errors import CheckpointMismatchError

# Dtypes that torch takes from NumPy's memory.
_NATIVE = {
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
}
# Dtypes that torch has, but does not take from NumPy's memory.
_THROUGH_BITS = {
    *("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
    "float8_e5m2fnuz",
}
_SIGNED = {1: torch.uint8, 2: torch.int16}


def to_torch(x: Any) -> torch.Tensor:
    """Return a tensor with the bits of `x`, in new memory.

    Dtypes that torch lacks (int4) travel as unsigned integers of the same width.

    It must be a copy: a training step donates the array's buffer, and an asynchronous
    checkpoint writer reads the tensor after that.
    """
    array = np.array(as_numpy(x))
    name = array.dtype.name
    if name in _THROUGH_BITS:
        bits = unsigned(array)
        bits = bits if array.itemsize == 1 else bits.view(np.int16)
        return torch.from_numpy(bits).view(getattr(torch, name))
    return torch.from_numpy(array if name in _NATIVE else unsigned(array))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return the bits of a tensor in NumPy's memory, with its dtype if NumPy has it.

    Other dtypes come as unsigned integers of the same width, for `restore_array`.
    """
    tensor = tensor.detach().cpu().contiguous()
    if dtype_name(tensor) in _THROUGH_BITS:
        tensor = tensor.view(_SIGNED[tensor.element_size()])
        return unsigned(np.array(tensor.numpy()))
    return np.array(tensor.numpy())


def dtype_name(tensor: torch.Tensor) -> str:
    """Return NumPy's name of a tensor's dtype."""
    return str(tensor.dtype).removeprefix("torch.")


def from_torch(name: str, tensor: torch.Tensor, like: Any) -> Any:
    """Return the array that `to_torch` was given.

    **Arguments:**

    - `name`: of the leaf, for the error.
    - `tensor`: the tensor.
    - `like`: an array of the shape and dtype that are required.

    **Raises:** `CheckpointMismatchError`, naming the leaf, for another shape or dtype.
    """
    expected = jax.random.key_data(like) if is_key(like) else like
    # NumPy's int64 in a model is int32 in its state, unless JAX has double precision.
    dtype = jax.dtypes.canonicalize_dtype(expected.dtype)
    found, wanted = dtype_name(tensor), dtype.name
    if wanted not in _NATIVE | _THROUGH_BITS:
        wanted = f"uint{8 * dtype.itemsize}"
    if tuple(tensor.shape) != tuple(expected.shape) or found != wanted:
        wide = found == "float64" and not jax.config.jax_enable_x64  # pyright: ignore
        raise CheckpointMismatchError(
            f"leaf {name}: the checkpoint holds {found}{list(tensor.shape)}, the "
            f"module expects {dtype.name}{list(expected.shape)}. Build the "
            "module with the settings that the checkpoint was written with, and the "
            "Trainer with its precision"
            + ", after jax.config.update('jax_enable_x64', True)"
            * wide
        )
    description = describe_array(
        like if is_key(like) else jax.ShapeDtypeStruct(expected.shape, dtype)
    )
    return restore_array(name, to_numpy(tensor), description)


def leaf_names(tree: PyTree) -> dict[str, Any]:
    """Return the arrays of a tree by path, `{"model.layers.0.weight": Array}`."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {path_name(path): leaf for path, leaf in leaves}


def pack(tree: PyTree) -> dict[str, torch.Tensor]:
    """Return every array of a tree as a tensor, by path."""
    return {name: to_torch(_on_device(leaf)) for name, leaf in leaf_names(tree).items()}


def _on_device(leaf: Any) -> Any:
    """Return a NumPy leaf in the dtype that JAX gives it: int32 for int64."""
    if isinstance(leaf, np.ndarray):
        return leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
    return leaf


def unpack(tree: PyTree, tensors: Mapping[str, torch.Tensor]) -> PyTree:
    """Return a tree with the arrays that `tensors` names; the others stay.

    Each lies on the devices of the array that it replaces.
    """

    def replace(path, leaf):
        name = path_name(path)
        if not eqx.is_array(leaf) or name not in tensors:
            return leaf
        new = from_torch(name, tensors[name], leaf)
        if not isinstance(leaf, jax.Array) or jax.process_count() > 1:
            return new
        spread = len(leaf.sharding.device_set) > 1
        return jax.device_put(new, leaf.sharding) if spread else new

    return jax.tree_util.tree_map_with_path(replace, tree)
