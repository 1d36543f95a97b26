"""Finding data on disk: what is missing is named, with the remedy."""

import os
from pathlib import Path
from typing import TypeAlias

PathLike: TypeAlias = str | os.PathLike[str]


def existing(argument: str, path: Path, remedy: str) -> Path:
    """The path, if it exists.

    **Raises:** `FileNotFoundError` with the argument, the path tried and the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{argument}: there is no {path}. {remedy}")
    return path
