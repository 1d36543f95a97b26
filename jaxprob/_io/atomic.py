"""A file is replaced whole and durably, or not at all.

The bytes go to a temporary file *in the target's own folder*: a rename across file
systems is a copy, and a copy can be cut short. They reach the disk (`fsync`) before the
rename makes them visible, and the folder is synced after it. Whatever instant a process
is killed at, the name stands for the old content or for the new.
"""

import contextlib
import os
import stat
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTIAL = ".jaxprob-partial"  # how the names of temporary files end


def replace_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Call `write` on a temporary path and move what it wrote to `path`.

    A new file gets the permissions of the process's umask, as from `open`; a file that
    is replaced passes its permissions on.

    **Arguments:**

    - `path`: where the file is to stand. Folders are made.
    - `write`: writes the file at the path that it is given.

    **Raises:** `OSError` as the file system gives it. A file that stood at `path` is as
    it was.
    """
    partial = path.with_name(partial_name())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _permissions(path, partial)
        write(partial)
        with contextlib.suppress(PermissionError):  # file systems without permissions
            os.chmod(partial, mode)
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


def _permissions(path, partial):
    # Created here and looked at: reading the umask itself means changing it, for all
    # threads. Writers that go through mkstemp (safetensors) would leave 0600.
    descriptor = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        fresh = stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return fresh


def _sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
