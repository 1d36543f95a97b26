"""Arrays and a text in one safetensors file: readable by any program, run by none."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._atomic import replace_whole
from ._keys import is_key

# What safetensors takes from NumPy; all else travels as unsigned integers.
_NATIVE = {
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32"),
    *("int64", "float16", "float32", "float64"),
}
_BITS: dict[int, type] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def describe(array: Any) -> tuple[np.ndarray, dict[str, str]]:
    """The bits of an array as NumPy, and what it takes to read them back."""
    if is_key(array):
        data = np.asarray(jax.random.key_data(array))
        return data, {"key": str(jax.random.key_impl(array))}
    array = np.ascontiguousarray(np.asarray(array)).reshape(np.shape(array))
    name = array.dtype.name
    if name in _NATIVE:
        return array, {"dtype": name}
    if array.dtype.kind == "c":
        # Real and imaginary parts along a new last axis.
        real = array.real.dtype
        return array[..., None].view(real), {"dtype": name}
    return array.view(_BITS[array.itemsize]), {"dtype": name}


def restore(bits: np.ndarray, description: dict[str, str]) -> Any:
    """The inverse of `describe`, on the device."""
    if "key" in description:
        return jax.random.wrap_key_data(jnp.asarray(bits), impl=description["key"])
    dtype = jnp.dtype(description["dtype"])
    if dtype.kind == "c":
        bits = bits.view(dtype)[..., 0]
    elif dtype.name not in _NATIVE:
        bits = bits.view(dtype)
    return jnp.asarray(bits)


def write(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Writes a file whole or not at all: what stood there stands until the rename.

    **Raises:** `OSError` as the file system gives it.
    """
    from safetensors.numpy import save_file

    replace_whole(path, lambda partial: save_file(arrays, partial, metadata))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a file.

    **Raises:** `ValueError` when it is damaged, or no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return arrays, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read: {error}. It is cut short or no safetensors file"
        ) from error
