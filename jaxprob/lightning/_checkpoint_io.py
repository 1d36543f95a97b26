"""Checkpoints that survive a crash at any instant, as a Lightning plugin."""

import errno
import os
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.io import AsyncCheckpointIO

from . import _folder_lock
from ._atomic_write import atomic_write, collect_orphans
from ._errors import CheckpointCorruptError, CheckpointWriteError
from ._seal import check_seal, seal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, and checks it before it is read.

    Every `LearnerModule` uses it in `fit` unless the Trainer was given another one.
    Lightning's own goes through the system's temporary folder, so a process killed
    while it copies from there destroys the previous checkpoint as well.

    ```python
    trainer = pl.Trainer(plugins=[AtomicCheckpointIO()])
    ```

    - Temporary file in the target's folder, `fsync`, rename, `fsync` of the folder.
    - A SHA-256 in the file, verified on load; it stays readable by `torch.load`.
    - What killed writers left is removed; a second process that writes into the same
        folder is refused.
    - Full disks and missing permissions raise `CheckpointWriteError`.

    Paths with a scheme (`s3://...`) are left to Lightning.
    """

    def __init__(self):
        super().__init__()
        self._folders: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        if _is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        self._enter(target)

        def write(partial: Path) -> None:
            try:
                torch.save(checkpoint, partial)
            except RuntimeError as error:
                # So torch's zip writer reports a full disk.
                raise OSError(errno.EIO, f"torch gave up: {error}") from error
            seal(partial)

        atomic_write(target, write)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The checkpoint, verified. Nothing in it is run: `weights_only=True`."""
        if _is_remote(path):
            return super().load_checkpoint(path, map_location, weights_only)
        return load_verified(Path(path), weights_only is not False)

    def remove_checkpoint(self, path: Any) -> None:
        if _is_remote(path):
            super().remove_checkpoint(path)
            return
        Path(path).unlink(missing_ok=True)

    def teardown(self) -> None:
        for folder in self._folders:
            _folder_lock.release(folder)
        self._folders.clear()

    def _enter(self, target):
        folder = target.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder = folder.resolve()
            if folder not in self._folders:
                if _folder_lock.acquire(folder):
                    collect_orphans(folder)
                self._folders.add(folder)
        except OSError as error:
            raise CheckpointWriteError(
                f"{target} was not written: {error.strerror or error} ({folder}). A "
                "file that stood at this path is unharmed"
            ) from error


class AsyncAtomicCheckpointIO(AsyncCheckpointIO):
    """Lightning's thread in front of an `AtomicCheckpointIO`, whose folders it leaves
    at the end.
    """

    def __init__(self):
        super().__init__(AtomicCheckpointIO())

    def teardown(self) -> None:
        super().teardown()
        assert self.checkpoint_io is not None
        self.checkpoint_io.teardown()


def make_atomic(strategy: Any) -> None:
    """Puts ours where Lightning's own plugin stands; any other was the user's choice.

    `AsyncCheckpointIO()` fills itself with Lightning's own, so it is taken apart.
    """
    own = strategy.checkpoint_io
    if type(own) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
    is_async = type(own) is AsyncCheckpointIO
    if is_async and type(own.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AsyncAtomicCheckpointIO()


def load_verified(path: Path, weights_only: bool = True) -> dict[str, Any]:
    """Reads a checkpoint whose seal fits.

    **Raises:** `CheckpointCorruptError`, naming the path, for a file that has changed,
    is cut short, or is no checkpoint; `FileNotFoundError`.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    check_seal(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as error:  # torch raises a dozen types for a damaged file
        raise CheckpointCorruptError(f"{path} cannot be read: {error}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointCorruptError(
            f"{path} holds a {type(checkpoint).__name__}, no checkpoint"
        )
    return checkpoint


def _is_remote(path):
    return "://" in os.fspath(path)
