"""The callback through which a `LearnerModule` follows the Trainer's loop.

Hooks of a module are the user's to override; these are ours, so nothing breaks when
one is overridden without a call of `super()`.
"""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl

from . import _private


class Bridge(pl.Callback):
    """Installs the fetcher, begins and ends the sums of a stage, settles accounts."""

    def __init__(self):
        self.give_back: Callable[[], None] = _nothing

    def on_train_start(self, trainer, pl_module: Any) -> None:
        # A run resumed in the middle of an epoch has no `on_train_epoch_start`.
        _private.check(trainer)
        _private.resume_after_epoch(trainer)
        pl_module.check_rows()
        pl_module.install_fetcher()

    def on_train_epoch_start(self, trainer, pl_module: Any) -> None:
        pl_module.install_fetcher()
        pl_module.begin_epoch()

    def on_train_batch_start(self, trainer, pl_module: Any, batch, batch_idx) -> None:
        _private.count_epoch(trainer)
        pl_module.note_batch(batch)

    def on_train_batch_end(
        self, trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.step_log.end_step(trainer)
        _private.save_on_time(trainer)

    def on_train_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_epoch()

    def on_validation_epoch_start(self, trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            pl_module.step_log.flush(trainer)
        pl_module.begin_evaluation()

    def on_validation_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        pl_module.note_batch(batch)

    def on_validation_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_evaluation("val_")

    def on_test_epoch_start(self, trainer, pl_module: Any) -> None:
        pl_module.begin_evaluation()

    def on_test_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        pl_module.note_batch(batch)

    def on_test_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_evaluation("test_")

    def on_exception(self, trainer, pl_module: Any, exception: BaseException) -> None:
        # Steps that were counted are made, whatever happens: a checkpoint written from
        # here on holds as many as it says.
        pl_module.settle()
        pl_module.step_log.flush(trainer)
        self.give_back()

    def teardown(self, trainer, pl_module: Any, stage: str) -> None:
        self.give_back()


def _nothing() -> None:
    pass
