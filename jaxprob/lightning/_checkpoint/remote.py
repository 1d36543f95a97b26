"""Files behind a URL (`s3://`, `gs://`, `memory://`), through fsspec.

A file is uploaded under a temporary name and moved when it is complete. Object stores
show an upload only when it is complete, and there the move is a copy on the server.
"""

import contextlib
import io
from typing import Any

import fsspec

from ..._io.atomic import partial_name
from .._errors import CheckpointError, CheckpointWriteError


def read(url: str) -> io.BytesIO:
    """Return the bytes of a file.

    **Raises:** `FileNotFoundError`.
    """
    fs, path = _open(url)
    if not fs.isfile(path):
        raise FileNotFoundError(f"there is no file {url}")
    return io.BytesIO(fs.cat_file(path))


def write(url: str, content: io.BytesIO) -> None:
    """Replace a file whole, or not at all.

    **Raises:** `CheckpointWriteError`, which names the URL and the cause.
    """
    fs, path = _open(url)
    folder = path.rpartition("/")[0]
    partial = f"{folder}/{partial_name()}"
    view = content.getbuffer()
    try:
        fs.makedirs(folder, exist_ok=True)
        with fs.open(partial, "wb") as file:
            file.write(view)
        if fs.size(partial) != len(view):
            raise OSError(f"{len(view)} bytes were sent, {fs.size(partial)} arrived")
        fs.mv(partial, path)
    except Exception as error:  # each back end has other types
        raise CheckpointWriteError(
            f"{url} was not written: {type(error).__name__}: {error}. Check that the "
            "bucket exists and that this process may write to it, or choose another "
            "folder (ModelCheckpoint(dirpath=...))"
        ) from error
    finally:
        view.release()
        with contextlib.suppress(Exception):
            if fs.exists(partial):
                fs.rm(partial)


def remove(url: str) -> None:
    """Delete a file, if it is there."""
    fs, path = _open(url)
    if fs.exists(path):
        fs.rm(path)


def find(url: str, pattern: str) -> dict[str, int]:
    """Return the files below a folder by URL, and when each was written.

    **Arguments:**

    - `url`: of the folder.
    - `pattern`: of the names.

    **Returns:** nanoseconds since 1970, and zero where the file system has no times.
    """
    fs, path = _open(url)
    fs.invalidate_cache()
    found: dict[str, Any] = fs.glob(f"{path.rstrip('/')}/**/{pattern}", detail=True)
    return {
        fs.unstrip_protocol(name): _written(fs, name)
        for name, info in found.items()
        if info["type"] == "file"
    }


def is_file(url: str) -> bool:
    """Return whether a URL names a file, and not a folder."""
    fs, path = _open(url)
    return bool(fs.isfile(path))


def join(folder: str, name: str) -> str:
    """Return the URL of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}"


def _written(fs, name):
    try:
        return int(fs.modified(name).timestamp() * 1e9)
    except NotImplementedError:
        return 0


def _open(url):
    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise CheckpointError(
            f"{url} cannot be reached: {error}. fsspec has no file system for it here: "
            "install the package that provides it (s3fs for s3://, gcsfs for gs://), "
            "or give a local path"
        ) from error
