"""The pair that a batch of a supervised method is."""

from typing import Any


def xy(data: Any) -> tuple[Any, Any]:
    """The pair of inputs and targets.

    **Raises:** `TypeError` when the data is no pair.
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise TypeError(
            f"a batch is a pair (x, y), and this one is {type(data).__name__}"
            + (f" of length {len(data)}" if isinstance(data, tuple | list) else "")
        )
    return data[0], data[1]
