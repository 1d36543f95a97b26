"""Paths of data on disk, with errors that name what is missing."""

import os
from pathlib import Path
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]


def existing(argument: str, path: Path, remedy: str) -> Path:
    """Return the path if it exists.

    **Raises:** `FileNotFoundError` with the argument, the path and the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{argument}: there is no {path}. {remedy}")
    return path
