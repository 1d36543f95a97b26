"""Files that are replaced whole, with errors that explain why one was not."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from ..._io.atomic import PARTIAL, replace_whole
from .._errors import CheckpointWriteError


def atomic_write(path: Path, write: Callable[[Path], None]) -> None:
    """Replace a file whole, or raise an error that names a remedy.

    **Raises:** `CheckpointWriteError` naming the path, the cause and the space left. A
    file that stood at `path` is as it was.
    """
    with explained(path):
        replace_whole(path, write)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` of a writer into a `CheckpointWriteError` with a remedy."""
    try:
        yield
    except OSError as error:
        raise CheckpointWriteError(_explain(path, error)) from error


def collect_orphans(folder: Path) -> list[Path]:
    """Remove the files that killed writers left in a folder, which must be locked."""
    orphans = list(folder.glob(f".*{PARTIAL}")) if folder.is_dir() else []
    for orphan in orphans:
        orphan.unlink(missing_ok=True)
    return orphans


def _explain(path, error):
    folder = next((p for p in path.parents if p.exists()), Path("/"))
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free there"
    except OSError:
        free = "the free space there is unknown"
    return (
        f"{path} was not written: {error.strerror or error}. {free}. A file that stood "
        "at this path is intact. Free space or fix permissions, or choose another "
        "folder (ModelCheckpoint(dirpath=...))"
    )
