"""A file is replaced whole and durably, or not at all.

The bytes go to a temporary file *in the target's own folder*: a rename across file
systems is a copy, and a copy can be cut short. They reach the disk (`fsync`) before the
rename makes them visible, and the folder is synced after it. Whatever instant a process
is killed at, the name stands for the old content or for the new.
"""

import contextlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL = ".jaxprob-partial"  # how the names of temporary files end


def replace_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Calls `write` on a temporary path and moves what it wrote to `path`.

    **Arguments:**

    - `path`: where the file is to stand. Folders are made.
    - `write`: writes the file at the path that it is given.

    **Raises:** `OSError` as the file system gives it. A file that stood at `path` is as
    it was.
    """
    partial = path.with_name(partial_name())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # the folder itself may be gone
            partial.unlink(missing_ok=True)


def partial_name() -> str:
    """Return a new name for a temporary file, short enough for any file system.

    The target's name is no part of it: that may be as long as the system allows.
    """
    return f".{uuid.uuid4().hex}{PARTIAL}"


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
