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

from . import _private
from ._bridge import Bridge, EpochMeans
from ._save_on_signal import SaveOnSignal

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


def somebody_looks(trainer: Any) -> bool:
    """Whether a callback, or the module, may look at a step when it is over."""
    return _overrides(trainer, ("on_train_batch_end",))


def somebody_logs(trainer: Any) -> bool:
    """Whether a callback, or the module, may log at single steps.

    `LearningRateMonitor` does, and any callback that calls `log` in a batch's hook: so
    a step that loggers want must be one that they see.
    """
    return _overrides(trainer, _BATCH_HOOKS)


def checkpoint_looks(trainer: Any) -> bool:
    """Whether a checkpoint callback looks at metrics when the step in hand is over."""
    step = trainer.global_step + 1
    return any(step % every == 0 for every in _private.checkpoint_intervals(trainer))


def _overrides(trainer, hooks):
    module = trainer.lightning_module
    callbacks: list[pl.Callback] = [
        callback for callback in trainer.callbacks if not isinstance(callback, _BLIND)
    ]
    watchers = [module, *callbacks]
    return any(is_overridden(hook, who) for hook in hooks for who in watchers)
