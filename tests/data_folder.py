"""Where real data lie that are not in the repository."""

import os
from pathlib import Path

import pytest


def data_folder(*parts: str) -> Path:
    """A path in $JAXPROB_DATA or in ../shared/data; the test is skipped without it."""
    default = Path(__file__).parents[2] / "shared" / "data"
    path = Path(os.environ.get("JAXPROB_DATA", default)).joinpath(*parts)
    if not path.exists():
        pytest.skip(f"no {path}: set JAXPROB_DATA to a folder that holds it")
    return path
