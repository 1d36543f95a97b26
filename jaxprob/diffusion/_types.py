"""Names for what recurs in signatures."""

from typing import Any, TypeAlias

from jaxtyping import Array, Float, PyTree

Time: TypeAlias = float | Float[Array, ""]
"""One time, between the schedule's `t_min` and `t_max`."""

Scalar: TypeAlias = Float[Array, ""]

Cond: TypeAlias = PyTree[Any]
"""What one example is conditioned on, or `None`; the network alone reads it."""
