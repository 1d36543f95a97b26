"""Names for the trees that recur in signatures."""

from collections.abc import Callable
from typing import Any, TypeAlias

from jaxtyping import Array, Float, Key, PyTree

Model: TypeAlias = PyTree
"""Any Equinox module, or any pytree at all: what is trained."""

State: TypeAlias = PyTree
"""A learner's state between updates, in which every leaf that changes is an array."""

Info: TypeAlias = dict[str, Float[Array, ""]]
"""Metrics by name, each the mean over the valid examples of one batch."""

PRNGKey: TypeAlias = Key[Array, ""]
"""One typed key, made by `jax.random.key`."""

Where: TypeAlias = Any
"""A choice of leaves: see `jaxprob.tree.select`."""

Metrics: TypeAlias = dict[str, Any]

Loss: TypeAlias = Callable[..., tuple[Float[Array, ""], Any]]
"""`loss(model, batch, *, key) -> (scalar, metrics)`; see `jaxprob.GradientDescent`."""
