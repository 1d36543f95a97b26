"""Reading a program that JAX has traced."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def inner_jaxprs(eqn: Any) -> Iterator[Jaxpr]:
    """The programs that an equation holds: of a loop, a branch, a custom rule."""
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr)
    ):
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
