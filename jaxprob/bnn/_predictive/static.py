"""Pytrees whose functions and settings are static."""

from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

Value = TypeVar("Value")


class Static(eqx.Module, Generic[Value]):
    """A pytree of arrays alone: all other leaves belong to its structure.

    `jax.jit` rejects leaves such as activation functions, which models and likelihoods
    contain. In this wrapper they pass through it, and through `jax.vmap`.
    """

    arrays: tuple[Array | np.ndarray | None, ...]
    others: tuple[Any, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @classmethod
    def of(cls, value: PyTree) -> "Static":
        """Wrap a pytree."""
        leaves, structure = jax.tree.flatten(value)
        is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
        pairs = list(zip(leaves, is_array, strict=True))
        arrays = tuple(leaf if known else None for leaf, known in pairs)
        others = tuple(None if known else leaf for leaf, known in pairs)
        return cls(arrays, others, structure)

    @property
    def value(self) -> Value:
        """The pytree that was wrapped."""
        pairs = zip(self.arrays, self.others, strict=True)
        leaves = [other if array is None else array for array, other in pairs]
        return jax.tree.unflatten(self.structure, leaves)
