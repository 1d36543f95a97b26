"""Unbounded minimisation over the logarithm of a positive number."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

FURTHEST = 80.0
"""Largest logarithm whose exponential single precision can hold."""

_RISES = 3
"""Number of consecutive rises that end the search on one side; the likelihood of a
mixture may rise and fall again."""


class Minimum(NamedTuple):
    """Result of `best_logarithm`.

    **Fields:**

    - `logarithm`: where the function is smallest.
    - `end`: 0 for a minimum inside; -1 or 1 if the function falls, or stays constant,
        as the number goes to zero or to infinity, so that it has no minimum.
    """

    logarithm: float
    end: int


def best_logarithm(loss: Callable[[float], float], start: float = 0.0) -> Minimum:
    """Find the logarithm of the positive number at which a function is smallest.

    The bracket grows by factors of e from the start until the function has risen on
    both sides, so no optimum lies beyond it.

    **Arguments:**

    - `loss`: a function of the logarithm. Values that are not finite count as infinite.
    - `start`: where the search begins.
    """
    from scipy.optimize import minimize_scalar

    def value(log):
        found = loss(log)
        return found if math.isfinite(found) else math.inf

    best, lowest = start, value(start)
    last = {}
    for side in (-1, 1):
        log, rises = start, 0
        while rises < _RISES and abs(log) < FURTHEST:
            log += side
            last[side] = value(log)
            rises += 1
            if last[side] < lowest:
                best, lowest, rises = log, last[side], 0
    flat = lowest + 1e-6 * max(1.0, abs(lowest))
    for side, end_value in last.items():
        if end_value <= flat:
            return Minimum(best, side)
    options = {"xatol": 1e-9}
    bounds = (best - 1.0, best + 1.0)
    found: Any = minimize_scalar(
        value, bounds=bounds, method="bounded", options=options
    )
    return Minimum(float(found.x), 0)
