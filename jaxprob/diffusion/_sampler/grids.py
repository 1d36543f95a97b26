"""Noise levels a sampler stops at: steps from much noise to little."""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .._schedule.argument_checks import check_count
from .._schedule.level_checks import ROUNDING, check_within, falling, schedule_levels
from .._schedule.schedule import AbstractSchedule


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

    def for_shape(self, shape: tuple[int, ...]) -> "AbstractGrid":
        """The grid for examples of this shape; by default the same."""
        return self


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

    def __check_init__(self):
        if not 0.0 < self.rho < math.inf:
            raise ValueError(f"Karras(rho={self.rho}): a positive number, 7 is usual")

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        check_num_steps(num)
        power = 1.0 / self.rho
        return np.linspace(level_max**power, level_min**power, num + 1) ** self.rho


class Focused(AbstractGrid):
    r"""Steps in $\log s$ that are shorter where the structure of the data is decided.

    The density of levels in $\log s$ is $1 + m \exp(-(\log s - c)^2 / 2w^2)$. Far above
    the scale of the data nothing happens, and far below each point has found its place;
    between, the denoiser changes fastest. With the default, steps there are a fifth as
    long. (Karras et al., 2022, draw their training levels from the same region.)

    The brightness of a large image is decided at levels as high as the side of the
    image, so steps stay short over a plateau of $\log s$ above c. Without it, 18 steps
    of `ExpAB` leave .92 of the standard deviation of brightness of 64x64 pixels.

    **Arguments:**

    - `centre`: c, for data of unit standard deviation.
    - `width`: w.
    - `strength`: m; 0 is `LogSNR`.
    - `plateau`: its length; by default samplers choose it by the number of pixels, 0 up
        to 28x28.
    """

    centre: float = eqx.field(default=-1.0, static=True)
    width: float = eqx.field(default=2.0, static=True)
    strength: float = eqx.field(default=4.0, static=True)
    plateau: float | None = eqx.field(default=None, static=True)

    def for_shape(self, shape: tuple[int, ...]) -> AbstractGrid:
        if self.plateau is not None:
            return self
        # Without a plateau the grid was chosen on 28x28 images. With these, 18 steps
        # leave a Gaussian direction that has a quarter of all variance an error of its
        # standard deviation below 1 %, for 64x64 and 128x128 pixels.
        plateau = min(4.0, max(0.0, 1.75 * math.log(math.prod(shape) / 784.0)))
        return Focused(self.centre, self.width, self.strength, plateau)

    def __check_init__(self):
        if self.plateau is not None and not 0.0 <= self.plateau < math.inf:
            raise ValueError(
                f"Focused(plateau={self.plateau}): a length in log s, 0 or more"
            )
        if not (self.width > 0.0 and 0.0 <= self.strength < math.inf):
            raise ValueError(
                f"Focused(width={self.width}, strength={self.strength}): a positive "
                "width, and a strength of 0 or more"
            )

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        check_num_steps(num)
        logs = np.linspace(math.log(level_min), math.log(level_max), 4097)
        offset = logs - self.centre
        above = np.maximum(offset - (self.plateau or 0.0), 0.0)
        bump = np.exp(-0.5 * (np.where(offset > 0.0, above, offset) / self.width) ** 2)
        density = 1.0 + self.strength * bump
        cumulative = np.cumsum((density[1:] + density[:-1]) / 2.0)
        cumulative = np.concatenate([[0.0], cumulative]) / cumulative[-1]
        return np.exp(np.interp(np.linspace(1.0, 0.0, num + 1), cumulative, logs))


class UniformTime(AbstractGrid):
    """Equal steps in the schedule's own time, as in Ho et al., 2020."""

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        check_num_steps(num)
        with jax.ensure_compile_time_eval():
            begin = float(schedule.time_of_noise_level(level_max))
            end = float(schedule.time_of_noise_level(level_min))
            times = np.linspace(begin, end, num + 1)[1:-1]
            inner = [float(schedule.noise_level(float(t))) for t in times]
        return np.array([level_max, *inner, level_min])


class CustomGrid(AbstractGrid):
    """The given levels, whatever the ends and number asked for.

    A sampler begins at the first and stops at the last of them.

    **Arguments:**

    - `levels`: falling, all positive, within those of the schedule. A last level of 0
        is the data, where every sampler ends, and may be left out.
    """

    levels: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, levels: tuple[float, ...] | list[float]):
        array = falling("levels", levels)
        array = array[array > 0.0]
        if len(array) < 2:
            raise ValueError(
                f"levels={tuple(levels)}: a grid has two or more levels above 0"
            )
        self.levels = tuple(float(level) for level in array)

    def __call__(
        self, schedule: AbstractSchedule, level_max: float, level_min: float, num: int
    ) -> np.ndarray:
        return np.asarray(self.levels)


def falling_levels(
    grid: AbstractGrid,
    schedule: AbstractSchedule,
    level_min: float,
    level_max: float | None,
    num: int,
) -> np.ndarray:
    """The levels of a sampler, whose first and last are where it begins and stops.

    A grid may have ends of its own (`CustomGrid`), so these and not those of
    `level_range` say how large the noise is.

    **Raises:** `ValueError` for levels that the schedule does not have.
    """
    high, low = level_range(schedule, level_min, level_max)
    name = f"{type(grid).__name__}'s levels"
    levels = falling(name, grid(schedule, high, low, num))
    # All samplers end at the data, by the denoiser at the last level with noise.
    levels = levels[levels > 0.0]
    check_within(schedule, **{"the first level": levels[0], "the last": levels[-1]})
    return levels


def levels_between(
    grid: AbstractGrid,
    schedule: AbstractSchedule,
    level_from: float,
    level_to: float,
    num: int,
) -> np.ndarray:
    """A grid's levels in the direction of a solve, which may be up.

    **Raises:** `ValueError` for a grid with ends of its own, if they are others.
    """
    high, low = max(level_from, level_to), min(level_from, level_to)
    levels = grid(schedule, high, low, num)
    if not np.allclose(levels[[0, -1]], [high, low], rtol=ROUNDING, atol=0.0):
        raise ValueError(
            f"the grid's levels go from {levels[0]:g} to {levels[-1]:g}, but the flow "
            f"is asked for between {high:g} and {low:g}: take a CustomGrid with those "
            "ends, or another grid"
        )
    return levels if level_from > level_to else levels[::-1]


def level_range(
    schedule: AbstractSchedule, level_min: float, level_max: float | None
) -> tuple[float, float]:
    """Ends `(high, low)` of sampling, within what the schedule has.

    A schedule may begin at no noise and end at nothing but noise, levels 0 and
    infinity, of which a logarithmic grid can have neither. Ends beyond those of the
    schedule are cut to them.

    **Raises:** `ValueError` for ends that are none, or with nothing between them.
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
    most, least = schedule_levels(schedule)
    low = max(least, level_min)
    high = min(most, 1e3 if level_max is None else level_max)
    if not 0.0 < low < high or not math.isfinite(high):
        raise ValueError(
            f"there is no noise level between level_min={level_min:g} and "
            f"level_max={level_max}: the schedule has {least:g} to {most:g}"
        )
    return high, low


def check_num_steps(num: Any) -> None:
    """There is a step to take."""
    check_count("num_steps", num, "take at least one step")
