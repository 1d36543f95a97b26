"""Methods that run several members, or chains, side by side."""

import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.capabilities import AbstractMembers
from ..._types import Info, PRNGKey, State
from .inference import AbstractInference


class AbstractMemberInference(AbstractInference, AbstractMembers):
    """Base class of methods with members, whose metrics are means over all members."""

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        state, info = self.update_members(state, batch, key=key)
        return state, {name: jnp.mean(value) for name, value in info.items()}
