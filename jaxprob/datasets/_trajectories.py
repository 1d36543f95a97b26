"""Trajectories of different lengths as one data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Padded = tuple[
    tuple[Float[np.ndarray, "rows times"], Bool[np.ndarray, "rows times"]],
    Float[np.ndarray, "rows times ..."],
]


def pad_trajectories(trajectories: Sequence[tuple[Any, Any]]) -> Padded:
    """Return trajectories of different lengths as rows of equal length, and a mask.

    Each row is one trajectory. Padded times repeat the last time and padded values the
    last value, so that an ODE solver makes no step for them and every value is valid.
    The mask belongs into the likelihood, by `.mask` of numpyro:

    ```python
    times, values = np.arange(3.0), np.zeros((3, 2))
    x, y = pad_trajectories([(times, values), (times[:2], values[:2])])

    def likelihood(output):
        states, mask = output  # a model that is called on x = (times, mask)
        return dist.Normal(states, 0.1).mask(mask[:, None])
    ```

    **Arguments:**

    - `trajectories`: pairs of times, of shape `(num,)`, and values, `(num, ...)`.

    **Returns:** `(times, mask), values`: inputs and targets, in float32 or in float64
    if all are given in it.

    **Raises:** `ValueError` naming the trajectory whose times decrease, whose times and
    values differ in number, or which is empty or not finite.
    """
    pairs = [(np.asarray(t), np.asarray(v)) for t, v in trajectories]
    if not pairs:
        raise ValueError("trajectories is empty: give pairs (times, values)")
    for index, pair in enumerate(pairs):
        _check(index, *pair, pairs[0][1].shape[1:])
    length = max(len(times) for times, _ in pairs)
    double = all(part.dtype == np.float64 for pair in pairs for part in pair)
    dtype = np.float64 if double else np.float32

    def padded(array):
        width = [(0, length - len(array)), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, width, mode="edge").astype(dtype)

    times, values = (np.stack([padded(pair[i]) for pair in pairs]) for i in (0, 1))
    mask = np.stack([np.arange(length) < len(times) for times, _ in pairs])
    return (times, mask), values


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
    if not (np.isfinite(times).all() and np.isfinite(values).all()):
        raise ValueError(
            f"{place} has times or values that are not finite: leave those times out"
        )
    if (np.diff(times) < 0).any():
        step = int(np.argmax(np.diff(times) < 0))
        raise ValueError(
            f"{place} goes back in time: {times[step + 1]} follows {times[step]}. Sort "
            "its times, with its values"
        )
