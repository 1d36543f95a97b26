"""Capabilities of an ensemble that each of its members has."""

from typing import Any

from jaxtyping import PyTree

from ..._random.keys import example_keys
from ..._training.capabilities import AbstractGradient
from ..._types import Model, PRNGKey, State
from .._inference.capabilities import AbstractTrainedModels


class MemberGradients(AbstractGradient):
    """Gradient of each member of an ensemble, along a leading axis."""

    ensemble: Any
    inner: AbstractGradient

    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree:
        def one(state, key):
            return self.inner.gradient(state, batch, key=key)

        keys = example_keys(key, self.ensemble.num_members)
        return self.ensemble.each(one, state, keys)


class MemberModels(AbstractTrainedModels):
    """Trained models of all members of an ensemble."""

    ensemble: Any
    inner: AbstractTrainedModels

    def models(self, state: State) -> tuple[Model, ...]:
        members = range(self.ensemble.num_members)
        states = [self.ensemble.member(state, index) for index in members]
        return tuple(m for state in states for m in self.inner.models(state))
