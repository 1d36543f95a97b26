"""Validation of rows in a Trainer: arrays as a whole, other loaders by batch."""

from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ..._training.data_check import DataCheck, check_arrays_of
from ..._training.learner import AbstractLearner
from ..._training.loader import ArrayLoader
from ..._types import Model
from .._trainer import private as _private
from .._trainer.precision import for_prediction


class RowChecks:
    """Check of the rows of each loader by the learner, once, for any kind of loader.

    The data of an `ArrayLoader` are checked as a whole when a fit begins. Those of any
    other loader, and of the loaders of `trainer.test` and `trainer.validate`, are
    checked batch after batch in their first pass.

    **Arguments:**

    - `learner`: whose `check` is called.
    """

    def __init__(self, learner: AbstractLearner):
        self._learner = learner
        self._training: DataCheck | None = None
        self._evaluation: dict[Any, DataCheck] = {}

    def begin_fit(self, trainer: Any, active: AbstractLearner, model: Model) -> None:
        """Check the arrays of a fit, and prepare for its batches.

        **Arguments:**

        - `active`: the learner in the Trainer's precision.
        - `model`: the model that is trained.

        **Raises:** the error of the learner about the rows.
        """
        model = for_prediction(active, model)
        training = jax.tree.leaves(trainer.train_dataloader)
        self._evaluation = {}
        self._training = DataCheck(self._learner, model, training=True)
        if len(training) == 1 and isinstance(training[0], ArrayLoader):
            rows = for_prediction(active, training[0].data)
            check_arrays_of(self._learner, model, rows, training=True)
            self._training.done = True
        elif _private.batch_in_epoch(trainer) >= 0 or not _is_all(trainer):
            self._training.end(whole=False)  # the rest of an epoch, or a part
        for loader in jax.tree.leaves(trainer.val_dataloaders):
            if isinstance(loader, ArrayLoader):
                rows = for_prediction(active, loader.data)
                check_arrays_of(self._learner, model, rows, training=False)

    def training(self, batches: list[PyTree]) -> None:
        """Check training batches, and remove the first bad one and those after it.

        **Raises:** the error of the learner about that batch.
        """
        check = self._training
        if check is None:
            return
        for index, batch in enumerate(batches):
            try:
                check(batch)
            except Exception:
                del batches[index:]  # those before it count as steps, and are made
                raise

    def end_epoch(self, trainer: Any) -> None:
        """Count the rows of the epoch."""
        if self._training is not None:
            self._training.end(whole=_private.is_last_batch(trainer))

    def evaluation(
        self,
        trainer: Any,
        active: AbstractLearner,
        model: Callable[[], Model],
        batch: PyTree,
        index: int,
    ) -> None:
        """Check a batch of validation or test.

        **Arguments:**

        - `active`: as in `begin_fit`.
        - `model`: returns the model. It is called once for each loader.
        - `batch`, `index`: the batch, and the index of its loader.

        **Raises:** the error of the learner about that batch.
        """
        stage = str(trainer.state.stage)
        place = (str(trainer.state.fn), stage, index)
        if place not in self._evaluation:
            fitting = trainer.state.fn == "fit"
            loaders = trainer.val_dataloaders if fitting else None
            loaders = jax.tree.leaves(loaders)
            evaluated = for_prediction(active, model())
            check = DataCheck(self._learner, evaluated, training=False)
            # Arrays were checked when the fit began.
            known = fitting and index < len(loaders)
            check.done = known and isinstance(loaders[index], ArrayLoader)
            self._evaluation[place] = check
        self._evaluation[place](batch)

    def end_evaluation(self, trainer: Any) -> None:
        """End the first pass."""
        if not trainer.sanity_checking:
            for check in self._evaluation.values():
                check.end()
        if trainer.state.fn != "fit":
            self._evaluation = {}  # the next test may be of other rows


def _is_all(trainer):
    """Return whether an epoch has every batch of the loader, and not a part of them."""
    limit = trainer.limit_train_batches
    return isinstance(limit, float) and limit == 1.0
