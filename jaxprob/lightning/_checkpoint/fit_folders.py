"""Validation before a fit: its checkpoints can be written."""

from typing import Any

from .checkpoint_io import AsyncAtomicCheckpointIO, AtomicCheckpointIO
from .plain import check_plain, without_numpy_scalars
from .save_on_signal import SaveOnSignal


def enter_folders(trainer: Any) -> None:
    """Take the folders that a fit will write into, and check its hyper-parameters.

    **Raises:** `CheckpointLockedError` when another process writes into one of them;
    `CheckpointContentError` for hyper-parameters that no checkpoint can hold.
    """
    plugin = trainer.strategy.checkpoint_io
    if isinstance(plugin, AsyncAtomicCheckpointIO):
        plugin = plugin.checkpoint_io
    if not isinstance(plugin, AtomicCheckpointIO) or not trainer.is_global_zero:
        return
    folders = [] if trainer.fast_dev_run else _folders(trainer)
    plugin.begin(folders)
    if plugin.plain and folders:
        for owner in (trainer.lightning_module, trainer.datamodule):
            if owner is not None and owner.hparams:
                entries = {"hyper_parameters": without_numpy_scalars(owner.hparams)}
                check_plain(entries, f"a checkpoint of {type(owner).__name__}")


def _folders(trainer):
    found = [
        getattr(callback, "dirpath", None)
        for callback in trainer.checkpoint_callbacks
        if getattr(callback, "save_top_k", 1) or getattr(callback, "save_last", None)
    ]
    signals = [c for c in trainer.callbacks if isinstance(c, SaveOnSignal)]
    found += [callback.folder(trainer) for callback in signals]
    return [folder for folder in found if folder]
