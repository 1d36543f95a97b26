"""The argument object of a sampler that says at which noise levels it steps."""

import abc
import dataclasses
import math
from typing import Any

import equinox as eqx
import numpy as np

from .._schedule.argument_checks import check_count
from .._schedule.level_checks import (
    ROUNDING,
    check_within,
    falling,
    positive,
    schedule_levels,
)
from .._schedule.schedule import AbstractSchedule


class AbstractGrid(eqx.Module):
    r"""Falling noise levels $s_0 > s_1 > \dots > s_n$ at which a sampler steps.

    They are computed on the host in double precision. Coefficients of multistep methods
    are differences of logarithms of levels, which in float32 would lose the digits that
    make the method's order.

    ```python
    sampler = Heun(18)  # 18 steps of Heun's default grid
    sampler = Heun(KarrasGrid(18, level_min=0.01))
    ```

    A subclass defines `between`.

    **Arguments:**

    - `num_steps`: n.
    - `level_min`: level to stop at, in units of the data's standard deviation as all
        levels are. Choose it well below the finest structure of the data; 0.002 in
        Karras et al. The last step, from there to the data, is the denoiser itself.
    - `level_max`: level to begin at; the schedule's end by default, at most 1000.
        Samples begin there with the mean and the covariance that the denoiser has.
    """

    num_steps: int = eqx.field(static=True)
    level_min: float = eqx.field(default=0.002, static=True, kw_only=True)
    level_max: float | None = eqx.field(default=None, static=True, kw_only=True)

    def __check_init__(self):
        check_count("num_steps", self.num_steps, "take at least one step")
        check_level_ends(self.level_min, self.level_max)

    @abc.abstractmethod
    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """Return `num_steps + 1` levels from `level_max` to `level_min`.

        **Arguments:**

        - `level_max`, `level_min`: the ends, within the schedule's levels.
        - `schedule`: whose noise it is.
        - `shape`: of one example.
        """

    def levels(self, schedule: AbstractSchedule, shape: tuple[int, ...]) -> np.ndarray:
        """Return the levels of a sampler, from where it begins to where it stops.

        **Raises:** `ValueError` for levels that the schedule does not have.
        """
        high, low = level_range(schedule, self.level_min, self.level_max)
        name = f"{type(self).__name__}'s levels"
        levels = falling(name, self.between(high, low, schedule=schedule, shape=shape))
        # All samplers end at the data, by the denoiser at the last level with noise.
        levels = levels[levels > 0.0]
        check_within(schedule, **{"the first level": levels[0], "the last": levels[-1]})
        return levels

    def beginning_at(self, level: float) -> "AbstractGrid":
        """Return the grid of as many steps that begins at another level.

        **Raises:** `ValueError` for a level that is not above the last one.
        """
        level = positive("start[1]", level)
        if level <= self.level_min:
            raise ValueError(
                f"start[1] = {level:g} is not above the level at which the sampler "
                f"stops, level_min={self.level_min:g}"
            )
        return dataclasses.replace(self, level_max=level)

    def levels_of_flow(
        self,
        level_from: float,
        level_to: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        """Return levels in the direction of a solve, which may be up.

        **Raises:** `ValueError` for a grid with fixed ends, if they are others.
        """
        high, low = max(level_from, level_to), min(level_from, level_to)
        levels = self.between(high, low, schedule=schedule, shape=shape)
        if not np.allclose(levels[[0, -1]], [high, low], rtol=ROUNDING, atol=0.0):
            raise ValueError(
                f"the grid's levels go from {levels[0]:g} to {levels[-1]:g}, but the "
                f"flow is asked for between {high:g} and {low:g}: take a CustomGrid "
                "with those ends, or another grid"
            )
        return levels if level_from > level_to else levels[::-1]


def with_grid(sampler: Any, grid: AbstractGrid) -> Any:
    """Return a sampler with another grid."""
    return eqx.tree_at(
        lambda sampler: sampler.grid,
        sampler,
        grid,
        is_leaf=lambda node: isinstance(node, AbstractGrid),
    )


def as_grid(grid: Any, default: type[AbstractGrid]) -> AbstractGrid:
    """Return a sampler's grid: the one that was given, or so many steps of the default.

    **Raises:** `TypeError` for anything else, `ValueError` for no steps.
    """
    if isinstance(grid, AbstractGrid):
        return grid
    if isinstance(grid, type):
        name = grid.__name__
        raise TypeError(f"grid is the class {name}: make one, {name}(18)")
    if isinstance(grid, bool) or not isinstance(grid, int | np.integer):
        raise TypeError(
            f"grid={grid!r} is a {type(grid).__name__}: give a number of steps such as "
            f"18, or a grid such as {default.__name__}(18)"
        )
    if grid < 1:
        raise ValueError(f"grid={grid}: take at least one step")
    return default(int(grid))


def check_level_ends(level_min: float, level_max: float | None) -> None:
    """Check that sampling goes from much noise to little.

    **Raises:** `ValueError` with the end that is wrong.
    """
    if not 0.0 <= level_min < math.inf:
        raise ValueError(
            f"level_min={level_min}: give the noise level to stop at, a small positive "
            "number"
        )
    if level_max is not None and not level_max > level_min:
        raise ValueError(
            f"level_max={level_max} must be above level_min={level_min:g}: sampling "
            "goes from much noise to little"
        )


def level_range(
    schedule: AbstractSchedule, level_min: float, level_max: float | None
) -> tuple[float, float]:
    """Return the ends `(high, low)` of sampling, within what the schedule has.

    A schedule may begin at no noise and end at nothing but noise, levels 0 and
    infinity, of which a logarithmic grid can have neither. Ends beyond those of the
    schedule are cut to them.

    **Raises:** `ValueError` for ends with nothing between them.
    """
    check_level_ends(level_min, level_max)
    most, least = schedule_levels(schedule)
    low = max(least, level_min)
    high = min(most, 1e3 if level_max is None else level_max)
    if not 0.0 < low < high or not math.isfinite(high):
        raise ValueError(
            f"there is no noise level between level_min={level_min:g} and "
            f"level_max={level_max}: the schedule has {least:g} to {most:g}"
        )
    return high, low
