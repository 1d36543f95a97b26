"""Methods that run several members, or chains, side by side."""

import abc

import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._types import Info, PRNGKey, State
from .inference import AbstractInference


class AbstractMembers(AbstractInference):
    """`update` gives the means over all members of what it tells of each."""

    @abc.abstractmethod
    def update_members(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, dict[str, Float[Array, " members"]]]:
        """`update` with the metrics of each member, along a leading axis.

        Members on several devices (see `jaxprob.Layout`) need not meet in each step.
        """

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        state, info = self.update_members(state, batch, key=key)
        return state, {name: jnp.mean(value) for name, value in info.items()}
