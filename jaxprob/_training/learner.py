"""The contract of everything that can be trained: four functions, and capabilities."""

import abc
from typing import Any, ClassVar, TypeVar

import equinox as eqx
from jaxtyping import PyTree

from .._types import Info, Model, PRNGKey, State


class AbstractCapability(eqx.Module):
    """Base class of what a learner may offer beyond training.

    Each direct subclass is one capability. A learner has it if its class is a subclass,
    or if it wraps a learner that has it; `AbstractLearner.capability` answers for both.

    **Fields:**

    - `lacking`: a clause that errors say of a learner without the capability.
    """

    lacking: ClassVar[str] = "lacks a capability"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if AbstractCapability in cls.__bases__:
            CAPABILITIES.append(cls)


CAPABILITIES: list[type[AbstractCapability]] = []
"""All capabilities that are defined, in order."""

Capability = TypeVar("Capability", bound=AbstractCapability)


class AbstractLearner(eqx.Module):
    """Base class of whatever is trained: gradient descent, every inference method.

    `jaxprob.fit` and the Lightning module train any learner by these four methods. They
    are pure: jit, vmap and scan them freely. Everything else that the engine can use of
    a learner is a capability (`jaxprob.AbstractGradient`, `jaxprob.AbstractMembers`,
    ...), for which the engine asks by `capability`.
    """

    @abc.abstractmethod
    def init(self, model: Model, *, key: PRNGKey) -> State:
        """Return the state before the first step. Each leaf that changes is an array.

        **Arguments:**

        - `model`: what is trained. It is not changed.
        - `key`: of everything random in the first state.
        """

    @abc.abstractmethod
    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        """Make one optimiser or sampler step on one batch; `info` holds `"loss"`."""

    @abc.abstractmethod
    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        """Return the same numbers as `update` for a batch that trains nothing."""

    @abc.abstractmethod
    def model(self, state: State) -> Model:
        """Return the one model to use if only one may be used: the average or mean."""

    def capability(self, kind: type[Capability]) -> Capability | None:
        """Return an object that has a capability for this learner's states, or `None`.

        ```python
        gradient = learner.capability(jaxprob.AbstractGradient)
        if gradient is not None:
            slopes = gradient.gradient(state, batch, key=key)
        ```

        The question is one for the object, not for its class: what a wrapper can do
        depends on the learner inside.

        **Arguments:**

        - `kind`: the abstract class of the capability.
        """
        return self if isinstance(self, kind) else None

    def lack(self, kind: type[AbstractCapability]) -> str:
        """Return a clause that says why `capability(kind)` is `None`, for errors."""
        return f"{type(self).__name__} {kind.lacking}"
