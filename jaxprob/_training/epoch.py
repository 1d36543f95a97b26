"""The number of the epoch, in the states of learners whose loss reads it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .gradient_descent import TrainState


def counts_epochs(state: PyTree) -> bool:
    """Return whether a learner's state holds the number of the epoch."""
    return any(map(_counts, jax.tree.leaves(state, is_leaf=_counts)))


def set_epoch(state: PyTree, epoch: int) -> PyTree:
    """Return a learner's state in another epoch. The number is no constant of a step.

    **Arguments:**

    - `epoch`: number of epochs before it.
    """

    def one(node: Any) -> Any:
        if not _counts(node):
            return node
        number = jnp.full_like(node.epoch, epoch)
        return TrainState(node.model, node.opt_state, node.ema, node.step, number)

    return jax.tree.map(one, state, is_leaf=_counts)


def _counts(node):
    return isinstance(node, TrainState) and node.epoch is not None
