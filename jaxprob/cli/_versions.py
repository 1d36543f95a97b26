"""Versions, git state and devices, as a run folder records them."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("jaxprob", "jax", "jaxlib", "equinox", "optax", "diffrax", "numpyro", "blackjax"),
    *("numpy", "scikit-learn", "torch", "pytorch-lightning", "pandas", "pyarrow"),
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return commit and changed files of the repository around a folder, if any."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words],
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no") or ""
    return {
        "commit": commit,
        "branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        "changed_files": len(changed.splitlines()),
    }


def command_line() -> list[str]:
    """Return the words of this process."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]]
