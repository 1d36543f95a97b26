"""A lock of a folder: one process at a time writes checkpoints into it."""

import contextlib
import errno
import os
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from .._errors import CheckpointLockedError

_LOCK = ".jaxprob-writer"
_OWNER = ".jaxprob-owner"  # Windows lets nobody read a file that is locked
_UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


class _Held(NamedTuple):
    lock: FileLock
    holders: int


_held: dict[Path, _Held] = {}


def acquire(folder: Path) -> bool:
    """Take the folder for this process; the system releases it when the process ends.

    Holders in one process share it. On a file system without locks, every process gets
    the folder.

    **Returns:** whether this is the first holder.

    **Raises:** `CheckpointLockedError` when another process has it.
    """
    folder = folder.resolve()
    if folder in _held:
        lock, holders = _held[folder]
        _held[folder] = _Held(lock, holders + 1)
        return False
    # A checkpoint may be written in another thread than the one that ends the fit.
    lock = FileLock(folder / _LOCK, thread_local=False)
    owner = folder / _OWNER
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise CheckpointLockedError(
            f"process {_read(owner) or 'unknown'} writes checkpoints into {folder}: "
            "two runs would delete each other's. Give this run another folder "
            "(default_root_dir=... or ModelCheckpoint(dirpath=...))"
        ) from None
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    owner.write_text(f"{os.getpid()}\n")
    _held[folder] = _Held(lock, 1)
    return True


def release(folder: Path) -> None:
    """Let go of a folder, once for each `acquire`."""
    folder = folder.resolve()
    lock, holders = _held.pop(folder)
    if holders > 1:
        _held[folder] = _Held(lock, holders - 1)
        return
    with contextlib.suppress(OSError):  # the folder may be gone
        (folder / _OWNER).unlink(missing_ok=True)
    lock.release()


def _read(owner):
    try:
        return owner.read_text().strip()
    except OSError:
        return ""
