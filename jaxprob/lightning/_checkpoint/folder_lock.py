"""One process at a time writes checkpoints into a folder."""

import fcntl
import os
from pathlib import Path

from .._errors import CheckpointLockedError

_NAME = ".jaxprob-writer"
_held: dict[Path, tuple[int, int]] = {}  # folder -> (descriptor, holders in here)


def acquire(folder: Path) -> bool:
    """Takes the folder for this process; the kernel lets go of it when we end.

    Holders in one process share it.

    **Returns:** whether this is the first holder.

    **Raises:** `CheckpointLockedError` when another process has it.
    """
    folder = folder.resolve()
    if folder in _held:
        descriptor, holders = _held[folder]
        _held[folder] = descriptor, holders + 1
        return False
    descriptor = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise CheckpointLockedError(
            f"process {owner or 'unknown'} writes checkpoints into {folder}: two runs "
            "would delete each other's. Give this run a folder of its own "
            "(default_root_dir=... or ModelCheckpoint(dirpath=...))"
        ) from None
    except OSError:
        # A file system without locks: then there is nothing to refuse by.
        pass
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    _held[folder] = descriptor, 1
    return True


def release(folder: Path) -> None:
    """Lets go of a folder once for each `acquire`."""
    folder = folder.resolve()
    descriptor, holders = _held.pop(folder)
    if holders > 1:
        _held[folder] = descriptor, holders - 1
    else:
        os.close(descriptor)
