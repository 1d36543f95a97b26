"""Switches of the tricks that change a program without changing what it computes.

Each trick gains time alone. With the environment variable `JAXPROB_PLAIN` programs stay
as they were written: `JAXPROB_PLAIN=all`, or names separated by commas,
`JAXPROB_PLAIN=convolutions,batch_second`. It is for telling an error of a trick from
one elsewhere, e.g. after an update of JAX.
"""

import contextlib
import os
from collections.abc import Iterator

TRICKS: tuple[str, ...] = ("batch_second", "convolutions", "examples_last")


def is_on(trick: str) -> bool:
    """Return whether programs that are traced now are changed by a trick."""
    return trick not in _OFF


@contextlib.contextmanager
def without(*tricks: str) -> Iterator[None]:
    """Turn tricks off for what is traced inside a `with` block."""
    before = set(_OFF)
    _OFF.update(_checked(tricks))
    try:
        yield
    finally:
        _OFF.intersection_update(before)


def _checked(names):
    unknown = set(names) - set(TRICKS)
    if unknown:
        raise ValueError(
            f"JAXPROB_PLAIN={','.join(sorted(unknown))!r} names no trick: choose from "
            f"{', '.join(TRICKS)}, or write JAXPROB_PLAIN=all"
        )
    return names


def _from_environment():
    names = [name for name in os.environ.get("JAXPROB_PLAIN", "").split(",") if name]
    return set(TRICKS) if names == ["all"] else set(_checked(names))


_OFF: set[str] = _from_environment()
