"""What can be trained, one step at a time, as pure functions on pytrees."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array, Int, PyTree

from .._types import Info, Model, PRNGKey, State


class AbstractLearner(eqx.Module):
    """One interface for whatever is trained: gradient descent, every inference method.

    `jaxprob.fit`, the Lightning module and the checkpoints know nothing but these
    methods. All but `check` are pure: jit, vmap and scan them freely.
    """

    moves_by_itself: ClassVar[bool] = False  # without an optax optimiser for all leaves

    def check(self, model: Model, data: PyTree) -> None:
        """Refuses a whole data set that cannot be right, before anything is traced.

        `fit` and the Lightning module call it where the rows are in memory. By default
        everything is accepted.

        **Raises:** `ValueError` or `TypeError` that names the argument and the row.
        """

    def check_training(self, model: Model, data: PyTree) -> None:
        """`check`, and what is to hold of the rows that are trained on alone."""
        self.check(model, data)

    def check_batches(
        self, model: Model, *, training: bool
    ) -> Callable[[PyTree], None]:
        """Return a check to call with each batch of a data set that is not in memory.

        By default `check` is called with the first batch.

        **Arguments:**

        - `model`: as in `check`.
        - `training`: whether the rows are trained on.
        """
        first = iter((True,))

        def look(data: PyTree) -> None:
            if next(first, False):
                self.check(model, data)

        return look

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        """Warn of a training set whose number of rows is not the one stated.

        By default nothing is stated.

        **Arguments:**

        - `rows`: those of one epoch.
        - `largest`: rows of its largest batch. A loader that drops the ragged last one
            leaves out fewer than that.
        """

    @abc.abstractmethod
    def init(self, model: Model, *, key: PRNGKey) -> State:
        """The state before the first step. Every leaf that changes is an array."""

    @abc.abstractmethod
    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        """One optimiser or sampler step on one batch; `info` holds `"loss"`."""

    @property
    def turns(self) -> int | None:
        """How many members `fit` trains in turn, each alone by `update_member`.

        Their states lie along the leading axis of every array of the state. `None`, the
        default, where `update` trains all there is.
        """
        return None

    def update_member(
        self, state: State, batch: PyTree, *, key: PRNGKey, index: Int[Array, ""]
    ) -> tuple[State, Info]:
        """`update` of the state of one member, whose number this is."""
        raise NotImplementedError(f"{type(self).__name__} has no members in turn")

    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree | None:
        """The gradient that `update` would follow, as a tree like the trained leaves.

        It is asked for when a run has failed, to name the leaf. `None`, the default,
        where a learner follows none.
        """
        return None

    @abc.abstractmethod
    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        """The same numbers as `update`, on a batch that trains nothing."""

    @abc.abstractmethod
    def model(self, state: State) -> Model:
        """The one model to use if only one may be used: the average, or the mean."""
