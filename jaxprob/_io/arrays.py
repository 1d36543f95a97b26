"""The one array codec: any array as plain bits with a name for its dtype, and back.

Files and checkpoints hold what NumPy knows as it is. Typed keys travel as the integers
they are made of; dtypes that a format lacks (int4 in safetensors and torch, for
example) as unsigned integers of the same width.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._random.keys import is_key

_UNSIGNED: dict[int, type] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_WIDE = ("float64", "int64", "uint64", "complex128")


def as_numpy(x: Any) -> np.ndarray:
    """An array on the host, C-contiguous; keys as the integers they are made of."""
    if is_key(x):
        x = jax.random.key_data(x)
    array = np.asarray(x, order="C")  # ascontiguousarray gives scalars an axis
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def unsigned(array: np.ndarray) -> np.ndarray:
    """The same bits as unsigned integers of the same width."""
    return array.view(_UNSIGNED[array.itemsize])


def canonical(dtype: Any) -> str:
    """Name of the dtype that JAX gives an array of `dtype` in this process."""
    return jax.dtypes.canonicalize_dtype(dtype).name


def describe_array(x: Any) -> dict[str, Any]:
    """Kind of an array, without its values: dtype or kind of key, shape, NumPy or JAX.

    `x` may be a `jax.ShapeDtypeStruct`.
    """
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        kind = {"key": str(jax.random.key_impl(x)) if is_key(x) else str(x.dtype)}
    else:
        kind = {"dtype": np.dtype(x.dtype).name}
    out = {**kind, "shape": list(np.shape(x))}
    if isinstance(x, np.ndarray):
        out["numpy"] = "array"
    elif isinstance(x, np.generic):
        out["numpy"] = "scalar"
    elif getattr(x, "weak_type", False) and np.ndim(x) == 0:
        out["weak"] = True
    return out


def restore_array(name: str, array: np.ndarray, description: dict[str, Any]) -> Any:
    """The array that was described, from its bits.

    **Arguments:**

    - `name`: for the error.
    - `array`: as `as_numpy` gave it, or its bits as unsigned integers.
    - `description`: from `describe_array`.

    **Raises:** `ValueError` for an array that does not fit its description, or in
    double precision where this process has single.
    """
    if "key" in description:
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=description["key"])
        return _checked(name, key, description)
    dtype = np.dtype(description["dtype"])
    if dtype.kind == "c" and array.dtype != dtype and array.shape[-1:] == (2,):
        array = np.ascontiguousarray(array).view(dtype)[..., 0]  # real and imaginary
    if array.dtype != dtype:
        if array.dtype != _UNSIGNED.get(dtype.itemsize):
            raise ValueError(f"{name} is stored as {array.dtype}, not as {dtype}")
        array = array.view(dtype)
    _checked(name, array, description)
    if description.get("numpy") == "scalar":
        return array[()]
    if "numpy" in description:
        return np.array(array)
    if description.get("weak"):
        # A number that takes on the dtype it meets, as it did before.
        return jnp.asarray(array.item())
    if dtype.name in _WIDE and not jax.config.read("jax_enable_x64"):
        raise ValueError(
            f"{name} is {dtype.name}, and this process has single precision: set "
            "jax.config.update('jax_enable_x64', True) first"
        )
    return jnp.asarray(array)


def _checked(name, array, description):
    if list(array.shape) != description["shape"]:
        raise ValueError(
            f"{name} has shape {list(array.shape)}, and the description says "
            f"{description['shape']}: the file is damaged"
        )
    return array
