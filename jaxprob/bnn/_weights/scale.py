"""Positive numbers: their check, and their unconstrained form for training."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float


def is_traced(value: Any) -> bool:
    """Return whether a value is traced: then only its shape and dtype are known."""
    return isinstance(value, Tracer)


def positive(name: str, value: Any) -> Array:
    """Return a positive number as an array; a Python number stays weakly typed."""
    if not is_traced(value) and not (np.asarray(value) > 0).all():
        raise ValueError(f"{name}={value}: it has to be positive")
    return real(value)


def real(value: Any) -> Array:
    """Return a number or an array in floating point; floating ones are unchanged."""
    if isinstance(value, int):
        return jnp.asarray(float(value))  # weakly typed, as a Python number is
    array = jnp.asarray(value)
    inexact = jnp.issubdtype(array.dtype, jnp.inexact)
    return array if inexact else array.astype(jnp.result_type(float))


def inverse_softplus(scale: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the number whose softplus is `scale > 0`.

    log(exp(s) - 1) overflows for large s and cancels for small s; this form does not.
    """
    return scale + jnp.log(-jnp.expm1(-scale))
