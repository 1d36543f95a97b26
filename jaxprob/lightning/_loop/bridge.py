"""The callbacks through which a `LearnerModule` follows the Trainer's loop.

Hooks of a module are the user's to override; these are ours, so nothing breaks when
one is overridden without a call of `super()`. There are two, for the user's callbacks
stand between them: at the end of an epoch they find its means, and what they say at the
end of a batch (`trainer.should_stop`) is known when the step is closed.
"""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint

from .._checkpoint.fit_folders import enter_folders
from .._trainer import private as _private
from .._trainer.options import refuse_callbacks
from .._trainer.signals import begin_work, end_work


class EpochMeans(pl.Callback):
    """Before all other callbacks: keeps the place in the data, logs epoch means.

    While callbacks look at an epoch, or validate, handlers of signals are called.
    """

    def setup(self, trainer, pl_module: Any, stage: str) -> None:
        # Lightning has looked whether a manual loop accumulates. From here on its count
        # of updates is to know.
        if stage == "fit":
            trainer.accumulate_grad_batches = pl_module.accumulate

    def on_train_start(self, trainer, pl_module: Any) -> None:
        pl_module.begin_fit()

    def on_train_epoch_start(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_train_batch_start(self, trainer, pl_module: Any, batch, batch_idx) -> None:
        pl_module.begin_batch()

    def on_train_batch_end(
        self, trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.end_batch()

    def on_train_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_epoch()
        end_work()

    def on_train_end(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_validation_start(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_validation_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_evaluation("val_")

    def on_test_epoch_end(self, trainer, pl_module: Any) -> None:
        pl_module.end_evaluation("test_")


class Bridge(pl.Callback):
    """After them: installs the fetcher, begins the sums of a stage, settles accounts.

    Checkpoints alone come later, as Lightning has it.
    """

    def __init__(self):
        self.undo: Callable[[], None] = _nothing

    def give_back(self) -> None:
        """Gives the Trainer its options back, once."""
        undo, self.undo = self.undo, _nothing
        undo()

    def setup(self, trainer, pl_module: Any, stage: str) -> None:
        # The module's own callbacks have come since.
        refuse_callbacks(trainer)

    def on_fit_start(self, trainer, pl_module: Any) -> None:
        enter_folders(trainer)

    def on_train_start(self, trainer, pl_module: Any) -> None:
        # A run resumed in the middle of an epoch has no `on_train_epoch_start`.
        _private.check(trainer)
        _private.resume_after_epoch(trainer)
        pl_module.note_scalers()
        pl_module.check_rows()
        pl_module.install_fetcher()

    def on_train_epoch_start(self, trainer, pl_module: Any) -> None:
        begin_work()
        pl_module.install_fetcher()
        pl_module.begin_epoch()

    def on_train_batch_start(self, trainer, pl_module: Any, batch, batch_idx) -> None:
        _private.count_epoch(trainer)
        pl_module.note_batch(batch)

    def on_train_batch_end(
        self, trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        pl_module.check_step_made(outputs)
        pl_module.step_log.end_step(trainer)
        _private.save_on_time(trainer)

    def on_train_epoch_end(self, trainer, pl_module: Any) -> None:
        begin_work()  # checkpoints are written now

    def on_train_end(self, trainer, pl_module: Any) -> None:
        begin_work()

    def on_validation_end(self, trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            begin_work()

    def on_validation_epoch_start(self, trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            pl_module.step_log.flush(trainer)
        pl_module.begin_evaluation()

    def on_validation_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        pl_module.note_batch(batch)

    def on_test_epoch_start(self, trainer, pl_module: Any) -> None:
        pl_module.note_scalers()
        pl_module.begin_evaluation()

    def on_predict_epoch_start(self, trainer, pl_module: Any) -> None:
        pl_module.note_scalers()

    def on_test_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        pl_module.note_batch(batch)

    def on_exception(self, trainer, pl_module: Any, exception: BaseException) -> None:
        # A checkpoint written from here on holds as many steps as it says.
        begin_work()
        pl_module.recover(exception)
        self.give_back()

    def teardown(self, trainer, pl_module: Any, stage: str) -> None:
        self.give_back()


def attach(trainer: Any) -> Bridge:
    """Puts both in their places among the Trainer's callbacks, at each run anew."""
    own = [c for c in trainer.callbacks if isinstance(c, Bridge)]
    bridge = own[0] if own else Bridge()
    others = [c for c in trainer.callbacks if not isinstance(c, Bridge | EpochMeans)]
    checkpoints = [c for c in others if isinstance(c, Checkpoint)]
    others = [c for c in others if not isinstance(c, Checkpoint)]
    # A new list: the old one may be the caller's.
    trainer.callbacks = [EpochMeans(), *others, bridge, *checkpoints]
    return bridge


def _nothing() -> None:
    pass
