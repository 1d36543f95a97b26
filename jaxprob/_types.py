"""Names for the trees that recur in signatures."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from jaxtyping import Array, Float, Key, PyTree

if TYPE_CHECKING:
    # To a type checker an abstract field is an argument of each `__init__` below it,
    # before those of the final class: `DeepEnsemble(method, 5)` would be an error. What
    # it takes for a class variable is none; the final class declares its fields.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar as AbstractVar

Model: TypeAlias = PyTree
"""Any Equinox module, or any pytree at all: what is trained."""

State: TypeAlias = PyTree
"""What a learner carries from one update to the next; what changes is an array."""

Info: TypeAlias = dict[str, Float[Array, ""]]
"""Metrics by name, each the mean over the valid examples of one batch."""

PRNGKey: TypeAlias = Key[Array, ""]
"""One typed key, made by `jax.random.key`."""

Where: TypeAlias = Any
"""A choice of leaves: see `jaxprob.tree.select`."""

Metrics: TypeAlias = dict[str, Any]

Loss: TypeAlias = Callable[..., tuple[Float[Array, ""], Any]]
"""`loss(model, batch, *, key) -> (scalar, metrics)`; see `jaxprob.GradientDescent`."""
