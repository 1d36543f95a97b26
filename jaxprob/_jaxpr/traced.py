"""A function of arrays that is traced once and used in many programs."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr
from jaxtyping import PyTree

from .rewrite import evaluated


class Traced:
    """A function whose Python code has run once, for arguments of these shapes.

    Calling it inside another program puts its operations there, without running the
    Python code again. Tracing a training step is the larger part of the time before the
    first step of a small model.

    **Arguments:**

    - `function`: `function(*trees) -> tree`, of arrays.
    - `args`: arrays of the shapes and dtypes of later calls.
    """

    def __init__(self, function: Callable[..., PyTree], *args: PyTree):
        made = jax.make_jaxpr(function, return_shape=True)(*args)
        self.program: ClosedJaxpr = made[0]
        self.shapes: PyTree = made[1]

    def __call__(self, *args: PyTree) -> Any:
        """Return what the function gives for other arrays of the same shapes."""
        leaves = evaluated(self.program, args)
        return jax.tree.unflatten(jax.tree.structure(self.shapes), leaves)
