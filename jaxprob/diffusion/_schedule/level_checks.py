"""Validation of noise levels, and of the coordinate of a point."""

import math
import warnings
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from .schedule import AbstractSchedule

# Relative. Schedules compute their ends in float32.
ROUNDING = 1e-5


def falling(name: str, levels: Any) -> np.ndarray:
    """Return noise levels as an array, and check that they fall.

    The last may be 0, which is the data.

    **Raises:** `TypeError` for levels that are being traced, `ValueError` that names
    the place of any that are repeated, rising, negative or not finite.
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(levels)):
        raise TypeError(
            f"{name} are being traced by jit or vmap: coefficients of the steps are "
            "computed on the host, so give a NumPy array and close over it"
        )
    array = np.asarray(levels, dtype=float)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(
            f"{name} has shape {array.shape}: give two or more levels, in one axis"
        )
    wrong = ~np.isfinite(array) | (array < 0.0)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f"{name}[{place}] = {array[place]:g}: a noise level is a positive number "
            "(the last may be 0, which is the data)"
        )
    rises = np.diff(array) >= 0.0
    if rises.any():
        place = int(np.argmax(rises))
        remedy = f" Write {name}[::-1]" if (np.diff(array) > 0.0).all() else ""
        raise ValueError(
            f"{name} must fall, from much noise to little, but {name}[{place}] = "
            f"{array[place]:g} and {name}[{place + 1}] = {array[place + 1]:g}.{remedy}"
        )
    return array


def schedule_levels(schedule: AbstractSchedule) -> tuple[float, float]:
    """Return the largest and the smallest noise level of a schedule, on the host.

    **Raises:** `ValueError` when they are being traced.
    """
    ends = _known_levels(schedule)
    if ends is None:
        raise ValueError(
            "the schedule is being traced, and the noise levels of a solve must be "
            "known before: do not give the denoiser to jit as an argument, close over "
            "it, as in `jax.jit(lambda x: log_prob(denoiser, x))`"
        )
    return ends


def _known_levels(schedule):
    # Schedules hold Python numbers, so this is known even while tracing.
    with jax.ensure_compile_time_eval():
        ends = (
            schedule.level(schedule.t_max),
            schedule.level(schedule.t_min),
        )
    if any(isinstance(end, Tracer) for end in ends):
        return None
    return float(ends[0]), float(ends[1])


def check_within(schedule: AbstractSchedule, **levels: float) -> None:
    """Check that a schedule has some noise levels, unless it is being traced.

    Beyond its ends `time_of_level` gives the ends, so the denoiser would be evaluated
    at less noise than there is in the point.

    **Raises:** `ValueError` with the level's name and the schedule's ends.
    """
    ends = _known_levels(schedule)
    if ends is None:
        return
    most, least = ends
    for name, level in levels.items():
        if not least * (1.0 - ROUNDING) <= level <= most * (1.0 + ROUNDING):
            raise ValueError(
                f"{name} = {level:g}, but {type(schedule).__name__} has the noise "
                f"levels {least:g} to {most:g} only: leave out the levels beyond, or "
                "take a schedule that has them"
            )


def positive(name: str, level: Any) -> float:
    """Return a noise level as a number of the host, and check that it is positive.

    **Raises:** `TypeError` or `ValueError` with the name.
    """
    if isinstance(level, Tracer):
        raise TypeError(
            f"{name} is being traced by jit or vmap: give a Python number, as the "
            "steps are planned on the host"
        )
    number = float(level)
    if not 0.0 < number < math.inf:
        remedy = ""
        if number == 0.0:
            remedy = (
                ". The flow comes to level 0 in infinite time: stop at a level well "
                "below the finest structure of the data, e.g. 0.002, and call the "
                "denoiser there"
            )
        raise ValueError(f"{name} = {number:g}: give a positive noise level{remedy}")
    return number


def check_coordinate(x: Array | np.ndarray, level: float) -> None:
    r"""Warn of a point that has less noise in it than its level says.

    Points at level s are $x_t/\alpha_t = x_0 + s z$. A point of d numbers has a mean
    square of at least about $s^2$, by six standard errors of $\sqrt{2/d}$; that of
    $x_t$ itself is smaller by $\alpha_t^2$. A traced point is not checked.
    """
    if isinstance(x, Tracer) or x.size == 0:
        return
    least = 1.0 - 6.0 * math.sqrt(2.0 / x.size)
    square = float(np.mean(np.square(np.asarray(x, np.float64)))) / level**2
    if least > 0.0 and square < least:
        warnings.warn(
            f"x has a root mean square of {math.sqrt(square) * level:.3g}, too small "
            f"for a point of {x.size} numbers with noise of level {level:.3g} in it. "
            "Levels go with x_t / alpha_t: write schedule.unscaled(x_t, t) if it "
            "is x_t",
            stacklevel=3,
        )
