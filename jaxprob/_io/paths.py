"""Local paths, told apart from URLs.

`pathlib` takes `"s3://bucket/run"` for the relative folder `s3:/bucket/run`, creates it
and writes there. So every path that a user gives passes one of the functions here.
"""

import os
import re
from pathlib import Path

_FILE = "file://"
_COLLAPSED = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/[^/]")  # Path("s3://bucket")


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path has a scheme, such as `s3://`, other than `file://`.

    **Raises:** `ValueError` for a `pathlib.Path` that was made of a URL, because it has
    lost one of the two slashes.
    """
    text = os.fspath(path)
    if isinstance(path, Path) and _COLLAPSED.match(text):
        scheme, rest = text.split(":/", 1)
        raise ValueError(
            f"{path!r} was made of a URL, and pathlib reads URLs as local folders. "
            f"Give the string '{scheme}://{rest}'"
        )
    return "://" in text and not text.startswith(_FILE)


def local_path(name: str, path: str | os.PathLike[str]) -> Path:
    """Return a path of the local file system, `~` expanded.

    **Arguments:**

    - `name`: of the argument, for the error.
    - `path`: what the user gave, perhaps with `file://`.

    **Raises:** `ValueError` for a URL.
    """
    if is_url(path):
        raise ValueError(
            f"{name}={os.fspath(path)!r} is a URL, and this function works on local "
            "files only. Give a local path, and copy with fsspec: "
            "fsspec.filesystem(protocol).put(local, url) after writing, .get(url, "
            "local) before reading"
        )
    return Path(os.fspath(path).removeprefix(_FILE)).expanduser()
