"""The callbacks through which an `Engine` follows the Trainer's loop.

Hooks of a module are the user's to override; these are ours, so nothing breaks when
one is overridden without a call of `super()`. There are two, with the user's callbacks
between them: at the end of an epoch these find its means, and what they decide at the
end of a batch (`trainer.should_stop`) is known when the step is closed.
"""

from collections.abc import Callable
from typing import Any

from pytorch_lightning.callbacks import Checkpoint

from .._checkpoint.exception_checkpoint import keep_first_error
from .._checkpoint.fit_folders import enter_folders
from .._trainer import private as _private
from .._trainer.contract import check
from .._trainer.reject_callbacks import reject_callbacks
from .._trainer.signals import begin_work, end_work
from .._trainer.watchers import PassiveCallback
from . import fast_forward as _fast_forward
from .engine import Engine


class EpochMeans(PassiveCallback):
    """Callback before all others, which notes the place in the data and logs means.

    While callbacks are called at the end of an epoch, or in a validation, handlers of
    signals are called at once.
    """

    def __init__(self, engine: Engine):
        self._engine = engine

    def setup(self, trainer, pl_module: Any, stage: str) -> None:
        # Lightning has checked that a manual loop accumulates nothing. From here on its
        # counter of updates must know.
        if stage == "fit":
            trainer.accumulate_grad_batches = self._engine.run.accumulate

    def on_train_start(self, trainer, pl_module: Any) -> None:
        self._engine.fit.begin()

    def on_train_epoch_start(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_train_batch_start(self, trainer, pl_module: Any, batch, batch_idx) -> None:
        self._engine.fit.begin_batch()

    def on_train_batch_end(
        self, trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._engine.fit.end_batch()

    def on_train_epoch_end(self, trainer, pl_module: Any) -> None:
        self._engine.fit.end_epoch()
        end_work()

    def on_train_end(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_validation_start(self, trainer, pl_module: Any) -> None:
        end_work()

    def on_validation_epoch_end(self, trainer, pl_module: Any) -> None:
        self._engine.end_evaluation("val_")

    def on_test_epoch_end(self, trainer, pl_module: Any) -> None:
        self._engine.end_evaluation("test_")


class Bridge(PassiveCallback):
    """Callback after those of the user, which installs the fetcher and begins stages.

    Only checkpoints come later, as in Lightning.
    """

    def __init__(self, engine: Engine):
        self.undo: Callable[[], None] = _nothing
        self.engine = engine

    def give_back(self) -> None:
        """Restore the options of the Trainer, once."""
        undo, self.undo = self.undo, _nothing
        undo()

    def setup(self, trainer, pl_module: Any, stage: str) -> None:
        # The module's own callbacks have come since.
        each_batch = self.engine.dispatcher.each_batch
        reject_callbacks(trainer, shows_each_batch=each_batch.shows_each_batch)

    def on_fit_start(self, trainer, pl_module: Any) -> None:
        enter_folders(trainer)

    def on_train_start(self, trainer, pl_module: Any) -> None:
        # A run resumed in the middle of an epoch has no `on_train_epoch_start`.
        check(trainer)
        _private.resume_after_epoch(trainer)
        self.engine.note_scalers()
        self.engine.fit.check_rows()
        _fast_forward.install(self.engine.dispatcher)

    def on_train_epoch_start(self, trainer, pl_module: Any) -> None:
        begin_work()
        _fast_forward.install(self.engine.dispatcher)
        self.engine.fit.begin_epoch()

    def on_train_batch_start(self, trainer, pl_module: Any, batch, batch_idx) -> None:
        _private.count_epoch(trainer)
        self.engine.note_batch(batch)

    def on_train_batch_end(
        self, trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.engine.fit.end_step(outputs)
        _private.save_on_time(trainer)

    def on_train_epoch_end(self, trainer, pl_module: Any) -> None:
        begin_work()  # checkpoints are written now

    def on_train_end(self, trainer, pl_module: Any) -> None:
        begin_work()

    def on_validation_end(self, trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            begin_work()
            self.engine.fit.observe(trainer.callback_metrics, "val_")

    def on_validation_epoch_start(self, trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.engine.dispatcher.step_log.flush(trainer)
        self.engine.begin_evaluation()

    def on_validation_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self.engine.note_batch(batch)

    def on_test_epoch_start(self, trainer, pl_module: Any) -> None:
        self.engine.note_scalers()
        self.engine.begin_evaluation()

    def on_test_batch_start(
        self, trainer, pl_module: Any, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self.engine.note_batch(batch)

    def on_predict_epoch_start(self, trainer, pl_module: Any) -> None:
        self.engine.begin_prediction()

    def on_predict_batch_end(
        self, trainer, pl_module: Any, outputs, batch, batch_idx, dataloader_idx=0
    ) -> None:
        self.engine.note_predicted(batch_idx, dataloader_idx)

    def on_predict_epoch_end(self, trainer, pl_module: Any) -> None:
        self.engine.end_prediction()

    def on_exception(self, trainer, pl_module: Any, exception: BaseException) -> None:
        # A checkpoint written from here on holds as many steps as it states.
        begin_work()
        keep_first_error(trainer)
        self.engine.dispatcher.recover(exception)
        self.give_back()

    def teardown(self, trainer, pl_module: Any, stage: str) -> None:
        self.give_back()


def attach(trainer: Any, engine: Engine) -> Bridge:
    """Put both in their places among the Trainer's callbacks, anew for each run."""
    own = [c for c in trainer.callbacks if isinstance(c, Bridge)]
    bridge = own[0] if own else Bridge(engine)
    bridge.engine = engine
    others = [c for c in trainer.callbacks if not isinstance(c, Bridge | EpochMeans)]
    checkpoints = [c for c in others if isinstance(c, Checkpoint)]
    others = [c for c in others if not isinstance(c, Checkpoint)]
    # A new list: the old one may be the caller's.
    trainer.callbacks = [EpochMeans(engine), *others, bridge, *checkpoints]
    return bridge


def _nothing() -> None:
    pass
