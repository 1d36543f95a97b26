"""Learners with another learner inside, of which no capability is lost in silence."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import equinox as eqx
import optax
from jaxtyping import Array, DTypeLike, Int, PyTree

from .._types import Info, Model, PRNGKey, State
from .capabilities import (
    AbstractAcceptReject,
    AbstractDataCheck,
    AbstractGradient,
    AbstractLowPrecision,
    AbstractMembers,
    AbstractOptimized,
    AbstractSequentialMembers,
)
from .learner import CAPABILITIES, AbstractCapability, AbstractLearner, Capability


@dataclass(frozen=True)
class Rejected:
    """Answer of a wrapper that takes no learner with a capability.

    **Arguments:**

    - `reason`: a sentence for the error that the constructor raises.
    """

    reason: str


@dataclass(frozen=True)
class Withheld:
    """Answer of a wrapper without a capability that the learner inside may have.

    It is for capabilities without which the caller raises an error.

    **Arguments:**

    - `reason`: a clause for that error.
    """

    reason: str


Answer: TypeAlias = Callable[[Any, Any], Any] | Rejected | Withheld
"""`answer(wrapper, inner)` makes a wrapper's capability of that of its learner."""


class AbstractLearnerWrapper(AbstractLearner):
    """Base class of every learner with another one inside.

    A wrapper has an answer to each capability: its class has the capability whatever is
    inside, or the table `forwards` says how it is made of the inner learner's, that the
    wrapper goes without it (`Withheld`), or that a learner with it is `Rejected`. A
    capability without an answer raises `TypeError` where the wrapper's class is
    defined; one that is defined later raises it where the wrapper is made.

    **Fields:**

    - `forwards`: answers by capability. Those of base classes hold too.
    """

    forwards: ClassVar[Mapping[type[AbstractCapability], Answer]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.__name__.startswith("Abstract"):
            for kind in CAPABILITIES:
                _answer(cls, kind)

    def __check_init__(self):
        for kind in CAPABILITIES:
            if self.inner.capability(kind) is None:
                continue
            answer = _answer(type(self), kind)
            if isinstance(answer, Rejected):
                raise TypeError(
                    f"{type(self).__name__} takes no {type(self.inner).__name__} "
                    f"({kind.__name__}): {answer.reason}"
                )

    @property
    @abc.abstractmethod
    def inner(self) -> AbstractLearner:
        """The learner inside, a field of the wrapper."""

    def inner_state(self, state: State) -> State:
        """Return the inner learner's part of a state: by default all of it."""
        return state

    def inner_batch(self, batch: PyTree) -> PyTree:
        """Return a batch as the inner learner takes it: by default unchanged."""
        return batch

    def inner_data(self, tree: PyTree) -> PyTree:
        """Return a model, or rows, as the inner learner checks it."""
        return tree

    def with_inner(self, learner: AbstractLearner) -> AbstractLearner:
        """Return the same wrapper of another learner."""
        return eqx.tree_at(lambda wrapper: wrapper.inner, self, learner)

    def capability(self, kind: type[Capability]) -> Capability | None:
        answer = _answer(type(self), kind)
        if answer is None:
            return self if isinstance(self, kind) else None
        inner = self.inner.capability(kind)
        if inner is None or isinstance(answer, Rejected | Withheld):
            return None
        return answer(self, inner)

    def lack(self, kind: type[AbstractCapability]) -> str:
        answer = _answer(type(self), kind)
        if isinstance(answer, Withheld):
            return answer.reason
        return self.inner.lack(kind)


def _answer(cls: type, kind: type[AbstractCapability]) -> Answer | None:
    """Return the answer of a class of wrappers; `None` where it has the capability."""
    if issubclass(cls, kind):
        return None
    for base in cls.__mro__:
        table = vars(base).get("forwards", {})
        if kind in table:
            return table[kind]
    raise TypeError(
        f"{cls.__name__} wraps learners and has no answer to {kind.__name__}: write in "
        "its table `forwards` a function of the wrapper and the inner capability, "
        "Withheld(reason) or Rejected(reason)"
    )


class ForwardedDataCheck(AbstractDataCheck):
    """Data checks of the learner inside."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractDataCheck

    def check(self, model: Model, data: PyTree) -> None:
        self.inner.check(*map(self.wrapper.inner_data, (model, data)))

    def check_training(self, model: Model, data: PyTree) -> None:
        self.inner.check_training(*map(self.wrapper.inner_data, (model, data)))

    def check_batches(
        self, model: Model, *, training: bool
    ) -> Callable[[PyTree], None]:
        model = self.wrapper.inner_data(model)
        check = self.inner.check_batches(model, training=training)
        return lambda data: check(self.wrapper.inner_data(data))

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        self.inner.check_num_rows(rows, largest=largest)


class ForwardedGradient(AbstractGradient):
    """Gradient of the learner inside, from its part of the state."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractGradient

    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree:
        state, batch = self.wrapper.inner_state(state), self.wrapper.inner_batch(batch)
        return self.inner.gradient(state, batch, key=key)


class ForwardedMembers(AbstractMembers):
    """Members of the learner inside, of a wrapper with the same state."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractMembers

    @property
    def num_members(self) -> int:
        return self.inner.num_members

    def members_axis(self, state: State) -> PyTree[bool]:
        return self.inner.members_axis(state)

    def update_members(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, dict[str, Array]]:
        batch = self.wrapper.inner_batch(batch)
        return self.inner.update_members(state, batch, key=key)


class ForwardedSequentialMembers(AbstractSequentialMembers):
    """Sequential members of the learner inside, of a wrapper with the same state."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractSequentialMembers

    @property
    def num_members(self) -> int:
        return self.inner.num_members

    def update_member(
        self, state: State, batch: PyTree, *, key: PRNGKey, index: Int[Array, ""]
    ) -> tuple[State, Info]:
        batch = self.wrapper.inner_batch(batch)
        return self.inner.update_member(state, batch, key=key, index=index)


class ForwardedOptimized(AbstractOptimized):
    """Optimisers of the learner inside."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractOptimized

    def map_optimizers(
        self,
        function: Callable[
            [optax.GradientTransformation], optax.GradientTransformation
        ],
    ) -> AbstractLearner:
        return self.wrapper.with_inner(self.inner.map_optimizers(function))


class ForwardedLowPrecision(AbstractLowPrecision):
    """Network of the learner inside."""

    wrapper: AbstractLearnerWrapper
    inner: AbstractLowPrecision

    def in_low_precision(self, dtype: DTypeLike) -> AbstractLearner:
        return self.wrapper.with_inner(self.inner.in_low_precision(dtype))


def same_capability(wrapper: AbstractLearnerWrapper, inner: Capability) -> Capability:
    """Return the inner learner's capability, which needs nothing of the wrapper."""
    return inner


SAME_STATE: dict[type[AbstractCapability], Any] = {
    AbstractDataCheck: ForwardedDataCheck,
    AbstractGradient: ForwardedGradient,
    AbstractMembers: ForwardedMembers,
    AbstractSequentialMembers: ForwardedSequentialMembers,
    AbstractOptimized: ForwardedOptimized,
    AbstractLowPrecision: ForwardedLowPrecision,
    AbstractAcceptReject: same_capability,
}
"""Answers of a wrapper that trains as the learner inside does, in its state."""
