"""Callbacks and hooks that read a step, which bound the steps in a dispatch."""

from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)
from pytorch_lightning.utilities.model_helpers import is_overridden

from . import private as _private
from .foreign import is_foreign


@runtime_checkable
class BatchWatcher(Protocol):
    """Protocol of a callback or module that states which batches it must be shown.

    A callback with a hook that Lightning calls for each batch is shown every batch, and
    each dispatch then holds one step. With `sees_every_batch = False`, as an attribute
    of the class or of the object, it is shown the last batch of each dispatch.

    ```python
    class PrintLoss(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            print(trainer.callback_metrics["train_loss_step"])
    ```
    """

    sees_every_batch: bool


class PassiveCallback(pl.Callback):
    """Base class of callbacks of jaxprob that read no metric of a step."""


# Lightning's callbacks that read no metric of a step, or state at which steps they do
# (the checkpoint), or may show those of the dispatch before (the bar). `EarlyStopping`
# reads the metrics of epochs.
_PASSIVE = (
    EarlyStopping,
    ModelCheckpoint,
    ModelSummary,
    PassiveCallback,
    ProgressBar,
    Timer,
)
_BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end")
_STEP_HOOKS = (*_BATCH_HOOKS, "on_before_optimizer_step", "on_before_zero_grad")


def each_batch_watchers(trainer: Any) -> list[str]:
    """Return the names of the classes that must be shown every batch.

    These are the callbacks, and the module, with a hook of the user's that Lightning
    calls once for a batch, unless they state otherwise (`BatchWatcher`).
    """
    return [
        type(watcher).__name__
        for watcher in _watchers(trainer)
        if _sees_every_batch(watcher)
        and any(is_foreign(watcher, hook) for hook in _STEP_HOOKS)
    ]


def steps_are_read(trainer: Any) -> bool:
    """Return whether a callback, or the module, may read a step when it is over.

    A hook of the user's that is called before the next step may read it as well.
    """
    ends = _overrides(trainer, ("on_train_batch_end",))
    return ends or any(overrides_any(trainer, hook) for hook in _STEP_HOOKS)


def steps_are_logged(trainer: Any) -> bool:
    """Return whether a callback, or the module, may log at single steps.

    `LearningRateMonitor` does, and any callback that calls `log` in a hook of a batch.
    They must be called at each step that loggers write.
    """
    own = any(overrides_any(trainer, hook) for hook in _BATCH_HOOKS)
    return own or _overrides(trainer, _BATCH_HOOKS)


def checkpoint_reads(trainer: Any) -> bool:
    """Return whether a checkpoint callback reads metrics after the step in hand."""
    step = trainer.global_step + (not _private.window_is_open(trainer))
    return any(step % every == 0 for every in _private.checkpoint_intervals(trainer))


def overrides_any(trainer: Any, hook: str) -> bool:
    """Return whether a callback, or the module, has a hook of the user's."""
    return any(is_foreign(watcher, hook) for watcher in _watchers(trainer))


def _watchers(trainer):
    return [trainer.lightning_module, *trainer.callbacks]


def _sees_every_batch(watcher):
    return not isinstance(watcher, BatchWatcher) or watcher.sees_every_batch


def _overrides(trainer, hooks):
    watchers = [w for w in _watchers(trainer) if not isinstance(w, _PASSIVE)]
    return any(is_overridden(hook, who) for hook in hooks for who in watchers)
