"""Trajectories of different lengths as one data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Padded = tuple[
    Float[np.ndarray, "rows times"],
    tuple[Float[np.ndarray, "rows times ..."], Bool[np.ndarray, "rows times ..."]],
]


def pad_trajectories(trajectories: Sequence[tuple[Any, Any]]) -> Padded:
    """Return trajectories of different lengths as rows of equal length, and a mask.

    Each row is one trajectory. Padded times repeat the last time, so that an ODE solver
    makes no step for them. Padded values are not observed, and neither are those that
    are NaN; as a target `(values, observed)` they do not enter the likelihood.

    ```python
    times, values = np.arange(3.0), np.zeros((3, 2))
    x, y = pad_trajectories([(times, values), (times[:2], values[:2])])
    values, observed = y                        # both of shape (2, 3, 2)
    ```

    **Arguments:**

    - `trajectories`: pairs of times, of shape `(num,)`, and values, `(num, ...)`.

    **Returns:** `times, (values, observed)`: inputs and targets, in float32 or in
    float64 if all are given in it. Values that are not observed are zero.

    **Raises:** `ValueError` naming the trajectory whose times decrease, whose times and
    values differ in number, or which is empty or infinite.
    """
    pairs = [(np.asarray(t), np.asarray(v)) for t, v in trajectories]
    if not pairs:
        raise ValueError("trajectories is empty: give pairs (times, values)")
    for index, pair in enumerate(pairs):
        _check(index, *pair, pairs[0][1].shape[1:])
    length = max(len(times) for times, _ in pairs)
    double = all(part.dtype == np.float64 for pair in pairs for part in pair)
    dtype = np.float64 if double else np.float32

    def padded(array, mode):
        width = [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, width, mode=mode).astype(dtype)

    times = np.stack([padded(times, "edge") for times, _ in pairs])
    seen = [~np.isnan(values) for _, values in pairs]
    observed = np.stack([padded(mask, "constant") for mask in seen]).astype(bool)
    values = np.stack([padded(values, "constant") for _, values in pairs])
    return times, (np.where(observed, values, np.zeros((), dtype)), observed)


def _check(index, times, values, shape):
    place = f"trajectory {index}"
    if times.ndim != 1 or not len(times):
        raise ValueError(
            f"{place} has times of shape {times.shape}: one axis of at least one time "
            "is needed"
        )
    if len(values) != len(times):
        raise ValueError(
            f"{place} has {len(times)} times and {len(values)} values: they have to "
            "agree"
        )
    if values.shape[1:] != shape:
        raise ValueError(
            f"{place} has values of shape {values.shape[1:]} at each time and "
            f"trajectory 0 has {shape}: they have to agree"
        )
    if not np.isfinite(times).all() or np.isinf(values).any():
        raise ValueError(
            f"{place} has times that are not finite or values that are infinite: write "
            "NaN for a value that is missing, and leave out a time that is unknown"
        )
    if (np.diff(times) < 0).any():
        step = int(np.argmax(np.diff(times) < 0))
        raise ValueError(
            f"{place} goes back in time: {times[step + 1]} follows {times[step]}. Sort "
            "its times, with its values"
        )
