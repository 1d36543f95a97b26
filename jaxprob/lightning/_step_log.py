"""Metrics of single steps, written when the device has them, not before.

`self.log` takes half a millisecond and needs the value at once, so the device would
stand still while Python writes. Here a step's metrics are noted as device arrays, and
written to loggers and progress bar under their own step after the next dispatch has
been handed over. Where somebody is about to look (a checkpoint that monitors, a
callback of the user's at the end of a batch) they are written at once.
"""

from dataclasses import dataclass
from typing import Any

from pytorch_lightning.callbacks import (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)
from pytorch_lightning.utilities.model_helpers import is_overridden

from .._stepper import StepMetrics
from . import _private
from ._bridge import Bridge

# Lightning's own callbacks read no metric of a step at its end, or (the checkpoint) say
# at which step they will, or (the bar) may show those of the dispatch before.
_BLIND = (
    DeviceStatsMonitor,
    EarlyStopping,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)


@dataclass
class Note:
    """Metrics of one dispatch, and where those of its last step belong."""

    metrics: StepMetrics
    epoch: int
    step: int
    logged: bool = False


class StepLog:
    """Holds the note of the last dispatch until it is written."""

    def __init__(self):
        self._note: Note | None = None

    def take(self, trainer: Any, metrics: StepMetrics) -> None:
        """Takes over the metrics of a dispatch whose last step is in hand."""
        previous, self._note = (
            self._note,
            Note(metrics, trainer.current_epoch, _private.logger_step(trainer)),
        )
        if previous is not None and (previous.logged or _has_bar(trainer)):
            _write(trainer, previous)
        if _is_watched(trainer) or _checkpoint_looks(trainer):
            # At the same place in the trace as `self.log` would have it.
            _private.write_metrics(trainer, _values(self._note))

    def end_step(self, trainer: Any) -> None:
        """The step in hand is over: whether loggers want it is known only now."""
        if self._note is not None:
            looked = _private.loggers_look(trainer) or bool(trainer.fast_dev_run)
            self._note.logged = looked

    def flush(self, trainer: Any) -> None:
        """Writes what is still noted. This waits for the device."""
        note, self._note = self._note, None
        if note is not None:
            _write(trainer, note)

    def drop(self) -> None:
        """Forgets what is noted."""
        self._note = None


def _values(note):
    metrics = note.metrics.fetch()
    return {f"train_{name}_step": float(value[-1]) for name, value in metrics.items()}


def _write(trainer, note):
    values = _values(note)
    _private.write_metrics(trainer, values)
    if note.logged:
        for logger in trainer.loggers:
            logger.log_metrics({**values, "epoch": note.epoch}, step=note.step)
            logger.save()


def _has_bar(trainer):
    bar = trainer.progress_bar_callback
    return bar is not None and not bar.is_disabled


def _checkpoint_looks(trainer):
    step = trainer.global_step + 1
    return any(step % every == 0 for every in _private.checkpoint_intervals(trainer))


def _is_watched(trainer):
    hook = "on_train_batch_end"
    return is_overridden(hook, trainer.lightning_module) or any(
        is_overridden(hook, callback)
        for callback in trainer.callbacks
        if not isinstance(callback, (*_BLIND, Bridge))
    )
