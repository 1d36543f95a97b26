"""Who looks at a run, and when: what bounds the number of steps in a dispatch."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    EarlyStopping,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
)
from pytorch_lightning.utilities.model_helpers import is_overridden

from .._checkpoint.save_on_signal import SaveOnSignal
from .._trainer import private as _private
from .._trainer.foreign import is_foreign
from .bridge import Bridge, EpochMeans

# They look at no metric of a step, or (the checkpoint) tell at which step they will, or
# (the bar) may show those of the dispatch before. `EarlyStopping` looks at epochs.
_BLIND = (
    Bridge,
    EarlyStopping,
    EpochMeans,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    SaveOnSignal,
    Timer,
)
_BATCH_HOOKS = ("on_train_batch_start", "on_train_batch_end")
_STEP_HOOKS = (*_BATCH_HOOKS, "on_before_optimizer_step", "on_before_zero_grad")


def each_batch_watchers(trainer: Any) -> list[str]:
    """Names of the classes that are to be shown every batch.

    They are the callbacks, and the module, with a hook of the user's that Lightning
    calls once for a batch. One that has `sees_every_batch = False` says that it may be
    shown the last batch of a dispatch alone.
    """
    watchers = [trainer.lightning_module, *trainer.callbacks]
    return [
        type(watcher).__name__
        for watcher in watchers
        if getattr(watcher, "sees_every_batch", True)
        and any(is_foreign(watcher, hook) for hook in _STEP_HOOKS)
    ]


def somebody_looks(trainer: Any) -> bool:
    """Whether a callback, or the module, may look at a step when it is over.

    A hook of the user's that is called before the next step may look at it as well.
    """
    ends = _overrides(trainer, ("on_train_batch_end",))
    return ends or any(overrides_any(trainer, hook) for hook in _STEP_HOOKS)


def somebody_logs(trainer: Any) -> bool:
    """Whether a callback, or the module, may log at single steps.

    `LearningRateMonitor` does, and any callback that calls `log` in a batch's hook: so
    a step that loggers want must be one that they see.
    """
    own = any(overrides_any(trainer, hook) for hook in _BATCH_HOOKS)
    return own or _overrides(trainer, _BATCH_HOOKS)


def checkpoint_looks(trainer: Any) -> bool:
    """Whether a checkpoint callback looks at metrics when the step in hand is over."""
    step = trainer.global_step + (not _private.window_is_open(trainer))
    return any(step % every == 0 for every in _private.checkpoint_intervals(trainer))


def overrides_any(trainer: Any, hook: str) -> bool:
    """Whether a callback, or the module, has a hook of the user's."""
    watchers = [trainer.lightning_module, *trainer.callbacks]
    return any(is_foreign(watcher, hook) for watcher in watchers)


def _overrides(trainer, hooks):
    module = trainer.lightning_module
    callbacks: list[pl.Callback] = [
        callback for callback in trainer.callbacks if not isinstance(callback, _BLIND)
    ]
    watchers = [module, *callbacks]
    return any(is_overridden(hook, who) for hook in hooks for who in watchers)
