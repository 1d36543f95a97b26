"""Capabilities of learners: an abstract class for each thing the engine can use.

| capability | used for |
|---|---|
| `AbstractDataCheck` | errors and warnings about rows before they are trained on |
| `AbstractGradient` | the leaf that broke a run, the gradient of a batch |
| `AbstractMembers` | members or chains shared among devices |
| `AbstractSequentialMembers` | members that are trained one after the other |
| `AbstractOptimized` | clipping, accumulation and loss scales around the optimiser |
| `AbstractLowPrecision` | the network computed in few bits |
| `AbstractAcceptReject` | low precision rejected |
"""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import optax
from jaxtyping import Array, DTypeLike, Int, PyTree

from .._types import Info, Model, PRNGKey, State
from .learner import AbstractCapability, AbstractLearner

if TYPE_CHECKING:
    # To a type checker an abstract field is an argument of each `__init__` below it,
    # before those of the final class: `DeepEnsemble(method, 5)` would be an error. A
    # class variable is none; the final class declares its fields.
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractDataCheck(AbstractCapability):
    """Check of data sets, with the model at hand, before anything is traced.

    `fit` and the Lightning module call it with rows that lie in the host's memory. Only
    `check` must be written. Errors are `ValueError` or `TypeError`, and name the
    argument and the row.
    """

    lacking: ClassVar = "has no check of data"

    @abc.abstractmethod
    def check(self, model: Model, data: PyTree) -> None:
        """Check a whole data set.

        **Raises:** `ValueError` or `TypeError` for data that cannot be right.
        """

    def check_training(self, model: Model, data: PyTree) -> None:
        """Check a whole training set: `check`, and what holds of training rows alone.

        **Raises:** as `check`.
        """
        self.check(model, data)

    def check_batches(
        self, model: Model, *, training: bool
    ) -> Callable[[PyTree], None]:
        """Return a check to call with each batch of a data set, or with all its rows.

        The rows it is given have been found to be finite. By default `check` is called
        with the first batch.

        **Arguments:**

        - `model`: as in `check`.
        - `training`: whether the rows are trained on.
        """
        first = iter((True,))

        def check(data: PyTree) -> None:
            if next(first, False):
                self.check(model, data)

        return check

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        """Warn of a training set whose number of rows is not the one stated.

        By default nothing is stated.

        **Arguments:**

        - `rows`: those of one epoch.
        - `largest`: rows of its largest batch. A loader that drops the ragged last
            batch leaves out fewer rows than that.
        """


class AbstractGradient(AbstractCapability):
    """Gradient that `update` would follow."""

    lacking: ClassVar = "follows no gradient"

    @abc.abstractmethod
    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree:
        """Return the gradient as a tree like the trained leaves.

        When a run fails, its paths name the leaf that is not finite.
        """


class AbstractMembers(AbstractCapability):
    """Members, or chains, that lie along the leading axis of arrays of the state.

    Members on several devices (see `jaxprob.Layout`) meet once in a dispatch: their
    metrics are averaged after its steps, not in each of them.

    **Fields:**

    - `num_members`: length of the axis.
    """

    lacking: ClassVar = "has no members"
    num_members: AbstractVar[int]

    @abc.abstractmethod
    def members_axis(self, state: State) -> PyTree[bool]:
        """Return a tree like the state: `True` for an array that has the axis."""

    @abc.abstractmethod
    def update_members(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, dict[str, Array]]:
        """Return what `update` does, with the metrics of each member along an axis."""


class AbstractSequentialMembers(AbstractCapability):
    """Members that `fit` trains one after the other, each by the same program.

    Their states lie along the leading axis of every array of the state.

    **Fields:**

    - `num_members`: length of the axis.
    """

    lacking: ClassVar = "has no sequential members"
    num_members: AbstractVar[int]

    @abc.abstractmethod
    def update_member(
        self, state: State, batch: PyTree, *, key: PRNGKey, index: Int[Array, ""]
    ) -> tuple[State, Info]:
        """Make one step of the member with this number, from its own state."""


class AbstractOptimized(AbstractCapability):
    """Training by optax transformations that move all leaves that move.

    Methods with another update rule, such as samplers, lack it: a
    transformation around an optimiser would leave their steps as they are.
    """

    lacking: ClassVar = "has no optax optimiser that makes all of its steps"

    def map_optimizers(
        self,
        function: Callable[
            [optax.GradientTransformation], optax.GradientTransformation
        ],
    ) -> AbstractLearner:
        """Return the learner with `function(optimizer)` for each of its optimisers.

        By default these are all optax transformations in its fields.
        """

        def one(node: Any) -> Any:
            return function(node) if _is_optimizer(node) else node

        learner: Any = jax.tree.map(one, self, is_leaf=_is_optimizer)
        return learner


class AbstractLowPrecision(AbstractCapability):
    """Training whose network can compute in fewer bits than its parameters have."""

    lacking: ClassVar = "has no network that could compute in few bits"

    @abc.abstractmethod
    def in_low_precision(self, dtype: DTypeLike) -> AbstractLearner:
        """Return the learner with its network, and no sum over the data, in `dtype`."""


class AbstractAcceptReject(AbstractCapability):
    """Mark of samplers that accept or reject by differences of log densities.

    Low precision rounds these differences away.
    """

    lacking: ClassVar = "does not accept or reject"


def _is_optimizer(node):
    return isinstance(node, optax.GradientTransformation)
