"""Checks of the data in a Trainer: of arrays at once, of batches as they come."""

from typing import Any

import jax
from jaxtyping import PyTree

from ..._training.data_check import DataCheck, check_arrays_of
from ..._training.loader import ArrayLoader
from .._trainer import private as _private
from .._trainer.precision import for_prediction


class RowChecks:
    """Shows the rows of each loader to the learner once, whatever the loader is.

    The data of an `ArrayLoader` are checked as a whole when a fit begins. Those of any
    other loader, and of the loaders of `trainer.test` and `trainer.validate`, are
    checked batch after batch in their first pass.
    """

    def __init__(self):
        self._training: DataCheck | None = None
        self._evaluation: dict[Any, DataCheck] = {}

    def begin_fit(self, module: Any) -> None:
        """Check the arrays of a fit, and prepare for its batches.

        **Raises:** what the learner says of the rows.
        """
        trainer, learner = module.trainer, module.learner
        model = for_prediction(module._run.active, module.model)
        training = jax.tree.leaves(trainer.train_dataloader)
        self._evaluation = {}
        self._training = DataCheck(learner, model, training=True)
        if len(training) == 1 and isinstance(training[0], ArrayLoader):
            rows = for_prediction(module._run.active, training[0].data)
            check_arrays_of(learner, model, rows, training=True)
            self._training.done = True
        elif _private.batch_in_epoch(trainer) >= 0 or not _is_all(trainer):
            self._training.end(whole=False)  # the rest of an epoch, or a part
        for loader in jax.tree.leaves(trainer.val_dataloaders):
            if isinstance(loader, ArrayLoader):
                rows = for_prediction(module._run.active, loader.data)
                check_arrays_of(learner, model, rows, training=False)

    def training(self, batches: list[PyTree]) -> None:
        """Check training batches, and remove them from the list from a bad one on.

        **Raises:** what the learner says of that batch.
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

    def evaluation(self, module: Any, batch: PyTree, index: int) -> None:
        """Check a batch of validation or test, of the loader of this index."""
        trainer = module.trainer
        stage = str(trainer.state.stage)
        place = (str(trainer.state.fn), stage, index)
        if place not in self._evaluation:
            fitting = trainer.state.fn == "fit"
            loaders = trainer.val_dataloaders if fitting else None
            loaders = jax.tree.leaves(loaders)
            model = for_prediction(module._run.active, module.model)
            check = DataCheck(module.learner, model, training=False)
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
    """Whether an epoch has every batch of the loader, and not a part of them."""
    limit = trainer.limit_train_batches
    return isinstance(limit, float) and limit == 1.0
