"""Noise levels a sampler stops at: steps from much noise to little."""

import abc
import math

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer

from ._schedule import AbstractSchedule


class AbstractGrid(eqx.Module):
    """Falling noise levels $s_0 > s_1 > \\dots > s_n$, on the host in double precision.

    Coefficients of multistep methods are differences of logarithms of these: in float32
    they would lose the digits that make the method's order.
    """

    @abc.abstractmethod
    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        """`num + 1` levels from `level_max` to `level_min`."""


class LogSNR(AbstractGrid):
    """Equal steps in $\\log s$: Lu et al., 2022 (DPM-Solver)."""

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        check_num_steps(num)
        return np.geomspace(level_max, level_min, num + 1)


class Karras(AbstractGrid):
    r"""Equal steps in $s^{1/\rho}$: Karras et al., 2022, equation 5.

    **Arguments:**

    - `rho`: 7 in the paper; as it grows the grid becomes `LogSNR`.
    """

    rho: float = eqx.field(default=7.0, static=True)

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        check_num_steps(num)
        power = 1.0 / self.rho
        return np.linspace(level_max**power, level_min**power, num + 1) ** self.rho


class CustomGrid(AbstractGrid):
    """The given levels, whatever the ends and number asked for.

    **Arguments:**

    - `levels`: falling, all positive.
    """

    levels: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, levels: tuple[float, ...] | list[float]):
        levels = tuple(float(level) for level in levels)
        if len(levels) < 2 or (np.diff(levels) >= 0).any() or levels[-1] <= 0:
            raise ValueError(
                f"levels={levels}: a grid is two or more falling positive noise levels"
            )
        self.levels = levels

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        return np.asarray(self.levels)


def level_range(
    schedule: AbstractSchedule, level_min: float, level_max: float | None
) -> tuple[float, float]:
    """Ends `(high, low)` of sampling, within what the schedule has.

    A schedule may begin at no noise and end at nothing but noise, levels 0 and
    infinity, of which a logarithmic grid can have neither.

    **Raises:** `ValueError` when nothing is left between the ends.
    """
    # Schedules hold Python numbers, so this is known even while tracing.
    with jax.ensure_compile_time_eval():
        ends = (
            schedule.noise_level(schedule.t_min),
            schedule.noise_level(schedule.t_max),
        )
    if any(isinstance(end, Tracer) for end in ends):
        raise ValueError(
            "the schedule's ends are being traced: sample with a schedule whose "
            "numbers are fixed, or give it to jit as a constant"
        )
    low, high = max(float(ends[0]), level_min), float(ends[1])
    high = min(high, 1e3 if level_max is None else level_max)
    if not 0.0 < low < high or not math.isfinite(high):
        raise ValueError(
            f"there is no noise level between level_min={level_min:g} and "
            f"level_max={level_max}: the schedule has {float(ends[0]):g} to "
            f"{float(ends[1]):g}"
        )
    return high, low


def check_num_steps(num: int) -> None:
    """There is a step to take."""
    if num < 1:
        raise ValueError(f"num_steps={num}: take at least one step")
