"""Inputs and targets of a batch."""

from typing import Any


def xy(data: Any) -> tuple[Any, Any]:
    """Return the pair of inputs and targets.

    **Raises:** `TypeError` for anything but a pair.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            f"a batch is a pair (x, y), and this one is {type(data).__name__}"
            + (f" of length {len(data)}" if isinstance(data, tuple | list) else "")
        )
    return data[0], data[1]
