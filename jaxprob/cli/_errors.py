"""Errors of the command as one line that says what is wrong and what to do."""

import difflib
import errno
from collections.abc import Iterable


class CommandError(Exception):
    """Error of a command line, a configuration or a file, to be shown as one line.

    **Arguments:**

    - `text`: what is wrong and what to do.
    - `code`: exit code of the command.
    """

    def __init__(self, text: str, code: int = 2):
        super().__init__(text)
        self.code = code


INTERRUPTED = 130
"""Exit code of an interrupted command, of shells 128 + SIGINT."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the known name nearest to a wrong one, or ''."""
    names = list(known)
    lower = {other.lower(): other for other in names}
    found = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f"; did you mean {lower[found[0]]!r}?" if found else ""


def one_line(error: BaseException) -> str:
    """Return the message of an error as one line, with a remedy where one is known."""
    if isinstance(error, OSError):
        return _of_system(error)
    text = " ".join(str(error).split())
    if isinstance(error, CommandError | ValueError | TypeError | ImportError):
        return text
    return (
        f"{type(error).__name__}: {text} (set JAXPROB_TRACEBACK=1 to see where it was "
        "raised)"
    )


def _of_system(error: OSError) -> str:
    place = error.filename if error.filename is not None else "the output"
    remedies = {
        errno.ENOENT: f"{place} does not exist: check the path",
        errno.EACCES: f"no permission for {place}: choose another place with --out, or "
        "change its permissions",
        errno.EPERM: f"no permission for {place}: choose another place with --out",
        errno.EROFS: f"{place} is on a file system that is read-only: choose another "
        "place with --out",
        errno.ENOSPC: f"no space left on the disk of {place}: free some, or choose "
        "another disk with --out; nothing was left half-written",
        errno.EDQUOT: f"the quota of the disk of {place} is used up: free some, or "
        "choose another disk with --out; nothing was left half-written",
        errno.EISDIR: f"{place} is a folder, and a file is needed",
        errno.ENOTDIR: f"{place} is below a file, and a folder is needed",
    }
    if error.errno in remedies:
        return remedies[error.errno]
    return " ".join(str(error).split())
