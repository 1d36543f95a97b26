"""Positive numbers: checked where given, stored unconstrained where trained."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def is_traced(value: Any) -> bool:
    """Whether this is inside a transformation, where values cannot be looked at."""
    return isinstance(value, Tracer)


def positive(name: str, value: Any) -> Array:
    """A positive number as an array; a Python number takes on the dtype it meets."""
    if not is_traced(value) and not (np.asarray(value) > 0).all():
        raise ValueError(f"{name}={value}: it has to be positive")
    return real(value)


def real(value: Any) -> Array:
    """A number or an array in floating point, as it is if it is there already."""
    if isinstance(value, int):
        return jnp.asarray(float(value))  # of no dtype of its own, as a Python number
    array = jnp.asarray(value)
    inexact = jnp.issubdtype(array.dtype, jnp.inexact)
    return array if inexact else array.astype(jnp.result_type(float))


def inverse_softplus(scale: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The number whose softplus is `scale > 0`.

    log(exp(s) - 1) overflows for large s and cancels for small s; this form does not.
    """
    return scale + jnp.log(-jnp.expm1(-scale))
