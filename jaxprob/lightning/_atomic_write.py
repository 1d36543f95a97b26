"""A file is replaced whole and durably, or not at all.

The bytes go to a temporary file *in the target's own folder*: a rename across file
systems is a copy, and a copy can be cut short. They reach the disk (`fsync`) before the
rename makes them visible, and the folder is synced after it. Whatever instant a process
is killed at, the name stands for the old content or for the new.
"""

import contextlib
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from ._errors import CheckpointWriteError

_SUFFIX = ".jaxprob-partial"


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` on a temporary path and moves what it wrote to `path`.

    **Arguments:**

    - `path`: where the file is to stand.
    - `write`: writes the file at the path that it is given.

    **Raises:** `CheckpointWriteError` naming the path, the cause and the space left. A
    file that stood at `path` is as it was.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_SUFFIX}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise CheckpointWriteError(_explain(path, error)) from error
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be gone
            partial.unlink(missing_ok=True)


def collect_orphans(folder: Path) -> list[Path]:
    """Removes what killed writers left in a folder; call it with the folder locked."""
    orphans = list(folder.glob(f".*{_SUFFIX}")) if folder.is_dir() else []
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return orphans


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explain(path, error):
    folder = next((p for p in path.parents if p.exists()), Path("/"))
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free there"
    except OSError:
        free = "the free space there is unknown"
    return (
        f"{path} was not written: {error.strerror or error}. {free}. A file that stood "
        "at this path is unharmed. Free space or fix permissions, or choose another "
        "folder (ModelCheckpoint(dirpath=...))"
    )
