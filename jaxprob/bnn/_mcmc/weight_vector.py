"""Random leaves of a model as one vector."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ..._types import Model, Where
from ...tree._ravel import ravel
from .._inference.inference import Roles
from .._weights.unconstrained import is_unconstrained


class WeightVector(eqx.Module):
    """Random leaves of a model, ravelled, and the way back to a model.

    **Fields:**

    - `params`: the random leaves, `None` elsewhere.
    - `rest`: all other leaves.
    """

    params: PyTree
    rest: PyTree

    @classmethod
    def of(cls, model: Model, random: Where | None) -> "WeightVector":
        """Split a model by the leaves that `random` selects."""
        return cls(*eqx.partition(model, Roles.of(model, random, False).random))

    @property
    def vector(self) -> Float[Array, " dim"]:
        """The random leaves of the model."""
        return ravel(self.params)[0]

    def unravel(self, vector: Float[Array, " dim"]) -> PyTree:
        """Return a tree like `params` with the numbers of a vector."""
        return ravel(self.params)[1](vector)

    def model(self, params: PyTree, statistics: PyTree = None) -> Model:
        """Return the model with other random leaves.

        **Arguments:**

        - `params`: the random leaves, from `unravel`.
        - `statistics`: running statistics in place of those of the model.
        """
        rest = self.rest
        if statistics is not None:
            rest = eqx.combine(statistics, rest)
        return eqx.combine(params, rest)

    def path(self, index: int) -> str:
        """Return the path of the leaf that holds an entry of the vector."""
        end = 0
        nodes = jax.tree_util.tree_leaves_with_path(
            self.params, is_leaf=is_unconstrained
        )
        for path, node in nodes:
            leaf = node.coordinates if is_unconstrained(node) else node
            end += 0 if leaf is None else leaf.size
            if index < end:
                return path_name(path)
        raise IndexError(f"index={index}: the random leaves hold {end} numbers")
