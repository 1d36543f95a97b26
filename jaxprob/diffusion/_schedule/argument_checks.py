"""Errors for arguments of a wrong kind, with the call that was meant."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...tree._single import single


def check_kind(name: str, value: Any, kind: type, remedy: str) -> None:
    """Check that a value is an instance of a class.

    **Arguments:**

    - `name`: the argument's name.
    - `value`, `kind`: the argument, and the class that is required.
    - `remedy`: what to write, unless the value is the class itself.

    **Raises:** `TypeError`.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type):
        raise TypeError(
            f"{name} is the class {value.__name__}: make one, {value.__name__}(...)"
        )
    raise TypeError(f"{name} is a {type(value).__name__}: {remedy}")


def check_count(name: str, value: Any, what: str, *, least: int = 1) -> None:
    """Check that a value is a whole number, `least` or more.

    **Raises:** `TypeError` for a float, which `range` and shapes do not take, and
    `ValueError` for a number too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(
            f"{name}={value!r} is a {type(value).__name__}: {what}, a whole number "
            f"such as {name}=18"
        )
    if value < least:
        raise ValueError(f"{name}={value}: {what}")


def as_shape(shape: Any) -> tuple[int, ...]:
    """Return the shape of one example as a tuple of whole numbers.

    **Raises:** `TypeError` for a single number, or one that is not whole.
    """
    whole = isinstance(shape, tuple | list) and all(
        isinstance(size, int | np.integer) for size in shape
    )
    if not whole:
        raise TypeError(
            f"shape={shape!r}: give the shape of one example, a tuple such as (2,) or "
            "(1, 28, 28)"
        )
    return tuple(int(size) for size in shape)


def as_example(name: str, x: Any) -> Float[Array, "..."]:
    """Return an example as an array of floats, of single precision at least.

    Lists, NumPy's double precision and integers become JAX's default float.

    **Raises:** `TypeError` for anything but an array of real numbers.
    """
    array = jnp.asarray(np.asarray(x) if isinstance(x, list | tuple) else x)
    if jnp.issubdtype(array.dtype, jnp.floating):
        return single(array)
    if jnp.issubdtype(array.dtype, jnp.integer):
        return array.astype(float)
    raise TypeError(f"{name} is {array.dtype}: give an array of real numbers")
