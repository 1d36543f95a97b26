"""Checkpoints that survive a crash at any instant, as a Lightning plugin."""

import contextlib
import errno
import io
import os
import pickle
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.plugins.io import AsyncCheckpointIO

from ..._io.paths import is_url, local_path
from .._errors import (
    CheckpointContentError,
    CheckpointCorruptError,
    CheckpointWriteError,
)
from . import folder_lock as _folder_lock, remote as _remote
from .atomic_write import atomic_write, collect_orphans
from .plain import check_plain, objects_in, without_numpy_scalars
from .seal import check_seal, seal


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin that writes files whole or not at all, and verifies them.

    Every `LearnerModule` uses it unless the Trainer was given another one. Lightning's
    own goes through the system's temporary folder, so a process killed while it copies
    from there destroys the previous checkpoint as well.

    ```python
    trainer = pl.Trainer(plugins=[AtomicCheckpointIO()])
    ```

    - Temporary file in the target's folder, `fsync`, rename, `fsync` of the folder.
      Behind a URL (`s3://...`, `gs://...`, through fsspec): an upload under a temporary
      name, which is then moved.
    - A SHA-256 in the file, verified on load; it stays readable by `torch.load`.
    - Files that killed writers left are removed. A second process that writes into the
      same local folder raises an error, which a fit does when it starts.
    - Full disks and missing permissions raise `CheckpointWriteError`.
    - NumPy scalars become Python numbers. Anything else that torch would not read back
      raises `CheckpointContentError` with the name of the entry.

    **Arguments:**

    - `plain`: whether to reject such objects. With `False` they are pickled, and the
        file is read by `weights_only=False` only.
    """

    def __init__(self, *, plain: bool = True):
        super().__init__()
        self.plain = plain
        self._folders: set[Path] = set()
        self._holds = False
        self._release = weakref.finalize(self, _release, self._folders)

    def begin(self, paths: Iterable[Any]) -> None:
        """Take the folders that a fit will write into, until `teardown`.

        **Raises:** `CheckpointLockedError` where another process writes.
        """
        self._holds = True
        for path in paths:
            if not is_url(path):
                folder = local_path("dirpath", path)
                self._enter(folder, f"this fit cannot write into {folder}")

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        **Raises:** `CheckpointWriteError`; `CheckpointLockedError`;
        `CheckpointContentError`.
        """
        if storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        checkpoint = without_numpy_scalars(checkpoint)
        if is_url(path):
            buffer = io.BytesIO()
            self._write(checkpoint, buffer, os.fspath(path))
            seal(buffer)
            _remote.write(os.fspath(path), buffer)
            return
        target = local_path("path", path)

        def write(partial: Path) -> None:
            self._write(checkpoint, partial, str(target))
            with partial.open("r+b") as file:
                seal(file)

        with self._entered(target):
            atomic_write(target, write)

    def load_checkpoint(
        self, path: Any, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the verified checkpoint; with `weights_only=False` its code is run.

        **Raises:** as `load_verified`.
        """
        return load_verified(path, weights_only is not False)

    def remove_checkpoint(self, path: Any) -> None:
        if is_url(path):
            _remote.remove(os.fspath(path))
        else:
            local_path("path", path).unlink(missing_ok=True)

    def teardown(self) -> None:
        self._holds = False
        _release(self._folders)

    def _write(self, checkpoint, target, name):
        try:
            torch.save(checkpoint, target)
        except RuntimeError as error:
            # Torch's zip writer reports a full disk in this way.
            raise OSError(errno.EIO, f"torch gave up: {error}") from error
        except (pickle.PicklingError, AttributeError, TypeError):
            check_plain(checkpoint, name)
            raise
        if self.plain and objects_in(target):
            check_plain(checkpoint, name)

    @contextlib.contextmanager
    def _entered(self, target) -> Iterator[None]:
        """Hold a folder while a file is written, or to the end of the fit."""
        self._enter(target.parent, f"{target} was not written")
        try:
            yield
        finally:
            if not self._holds:
                _release(self._folders)

    def _enter(self, folder, what):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            folder = folder.resolve()
            if folder not in self._folders:
                if _folder_lock.acquire(folder):
                    collect_orphans(folder)
                self._folders.add(folder)
        except OSError as error:
            raise CheckpointWriteError(
                f"{what}: {error.strerror or error} ({folder}). Files that are there "
                "are intact. Fix its permissions, or choose another folder "
                "(ModelCheckpoint(dirpath=...))"
            ) from error


def _release(folders: set[Path]) -> None:
    """Release folders, also when the Trainer never reached its teardown."""
    while folders:
        _folder_lock.release(folders.pop())


class AsyncAtomicCheckpointIO(AsyncCheckpointIO):
    """Lightning's thread around an `AtomicCheckpointIO`, torn down together."""

    def __init__(self):
        super().__init__(AtomicCheckpointIO())

    def teardown(self) -> None:
        assert self.checkpoint_io is not None
        try:
            super().teardown()  # raises what the thread could not
        finally:
            self.checkpoint_io.teardown()


def make_atomic(strategy: Any) -> None:
    """Replace Lightning's default plugin by ours; any other was the user's choice.

    `AsyncCheckpointIO()` wraps Lightning's default plugin, which is replaced as well.
    """
    own = strategy.checkpoint_io
    if type(own) is TorchCheckpointIO:
        strategy.checkpoint_io = AtomicCheckpointIO()
    is_async = type(own) is AsyncCheckpointIO
    if is_async and type(own.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = AsyncAtomicCheckpointIO()


def verified_source(
    path: Any,
    map_location: Any = None,
    hparams_file: Any = None,
    strict: bool | None = None,
    weights_only: bool | None = None,
    **kwargs: Any,
) -> tuple[Any, dict[str, Any]]:
    """Verify the file that `load_from_checkpoint` reads.

    **Arguments:** those of Lightning's `load_from_checkpoint`.

    **Returns:** the path, or an open file with what was read from a URL; and the
    checkpoint.

    **Raises:** as `load_verified`.
    """
    if isinstance(path, str | os.PathLike) and is_url(path):
        path = _remote.read(os.fspath(path))  # once only
    checkpoint = load_verified(path, weights_only is not False)
    if not isinstance(path, str | os.PathLike):
        path.seek(0)
    return path, checkpoint


def load_verified(
    path: str | os.PathLike[str] | io.IOBase, weights_only: bool = True
) -> dict[str, Any]:
    """Read a checkpoint after its seal has been verified.

    **Arguments:**

    - `path`: of a local file, a URL, or a file that is open.
    - `weights_only`: whether to read plain data only, which runs no code.

    **Raises:** `CheckpointCorruptError`, naming the path, for a file that has changed,
    is cut short, or is no checkpoint; `CheckpointContentError` for one that is whole
    and holds objects; `FileNotFoundError`.
    """
    if not isinstance(path, str | os.PathLike):
        return _load(path, getattr(path, "name", "the checkpoint"), weights_only)
    if is_url(path):
        return _load(_remote.read(os.fspath(path)), os.fspath(path), weights_only)
    path = local_path("path", path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    with path.open("rb") as file:
        return _load(file, str(path), weights_only)


def _load(file, name, weights_only):
    check_seal(file, name)
    file.seek(0)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=weights_only)
    except Exception as error:  # torch raises a dozen types for a damaged file
        objects = objects_in(file) if weights_only else []
        if objects:
            raise CheckpointContentError(
                f"{name} is intact, and holds {', '.join(objects[:3])}, which is not "
                "plain data: reading it would run code. If you trust its author, "
                "give weights_only=False"
            ) from error
        raise CheckpointCorruptError(f"{name} cannot be read: {error}") from error
    if not isinstance(checkpoint, dict):
        raise CheckpointCorruptError(
            f"{name} holds a {type(checkpoint).__name__}, not a dictionary"
        )
    return checkpoint
