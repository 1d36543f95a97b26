"""Grids of noise levels."""

import math

import equinox as eqx
import jax
import numpy as np

from .._schedule.level_checks import ROUNDING, falling, positive
from .._schedule.schedule import AbstractSchedule
from .grid import AbstractGrid


class LogLevelGrid(AbstractGrid):
    r"""Equal steps in $\log s$.

    Reference: *DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling
    in Around 10 Steps*, Lu et al., 2022.

    **Arguments:** as in `AbstractGrid`.
    """

    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        return np.geomspace(level_max, level_min, self.num_steps + 1)


class KarrasGrid(AbstractGrid):
    r"""Equal steps in $s^{1/\rho}$.

    Reference: *Elucidating the Design Space of Diffusion-Based Generative Models*,
    Karras et al., 2022, equation 5.

    **Arguments:**

    - `num_steps`, `level_min`, `level_max`: as in `AbstractGrid`.
    - `rho`: 7 in the paper; as it grows the grid becomes `LogLevelGrid`.
    """

    rho: float = eqx.field(default=7.0, static=True, kw_only=True)

    def __check_init__(self):
        if not 0.0 < self.rho < math.inf:
            raise ValueError(
                f"KarrasGrid(rho={self.rho}): give a positive number; 7 is usual"
            )

    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        power = 1.0 / self.rho
        ends = level_max**power, level_min**power
        return np.linspace(*ends, self.num_steps + 1) ** self.rho


class FocusedGrid(AbstractGrid):
    r"""Steps in $\log s$ that are shorter where the structure of the data is decided.

    The density of levels in $\log s$ is $1 + m \exp(-(\log s - c)^2 / 2w^2)$. Far above
    the scale of the data nothing happens, and far below each point has found its place;
    between, the denoiser changes fastest. With the default, steps there are a fifth as
    long. (Karras et al., 2022, draw their training levels from the same region.)

    The brightness of a large image is decided at levels as high as the side of the
    image, so steps stay short over a plateau of $\log s$ above c. Without it, 18 steps
    of `ExpAB` leave .92 of the standard deviation of brightness of 64x64 pixels.

    **Arguments:**

    - `num_steps`, `level_min`, `level_max`: as in `AbstractGrid`.
    - `centre`: c, for data of unit standard deviation.
    - `width`: w.
    - `strength`: m; 0 is `LogLevelGrid`.
    - `plateau`: its length; by default chosen by the number of pixels of an example, 0
        up to 28x28.
    """

    centre: float = eqx.field(default=-1.0, static=True, kw_only=True)
    width: float = eqx.field(default=2.0, static=True, kw_only=True)
    strength: float = eqx.field(default=4.0, static=True, kw_only=True)
    plateau: float | None = eqx.field(default=None, static=True, kw_only=True)

    def __check_init__(self):
        if self.plateau is not None and not 0.0 <= self.plateau < math.inf:
            raise ValueError(
                f"FocusedGrid(plateau={self.plateau}): give a length in log s, 0 or "
                "more"
            )
        if not (self.width > 0.0 and 0.0 <= self.strength < math.inf):
            raise ValueError(
                f"FocusedGrid(width={self.width}, strength={self.strength}): give a "
                "positive width, and a strength of 0 or more"
            )

    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        plateau = _plateau(shape) if self.plateau is None else self.plateau
        logs = np.linspace(math.log(level_min), math.log(level_max), 4097)
        offset = logs - self.centre
        above = np.maximum(offset - plateau, 0.0)
        bump = np.exp(-0.5 * (np.where(offset > 0.0, above, offset) / self.width) ** 2)
        density = 1.0 + self.strength * bump
        cumulative = np.cumsum((density[1:] + density[:-1]) / 2.0)
        cumulative = np.concatenate([[0.0], cumulative]) / cumulative[-1]
        parts = np.linspace(1.0, 0.0, self.num_steps + 1)
        return np.exp(np.interp(parts, cumulative, logs))


def _plateau(shape):
    # Without a plateau the grid was chosen on 28x28 images. With these, 18 steps leave
    # a Gaussian direction that has a quarter of all variance an error of its standard
    # deviation below 1 %, for 64x64 and 128x128 pixels.
    return min(4.0, max(0.0, 1.75 * math.log(math.prod(shape) / 784.0)))


class UniformTimeGrid(AbstractGrid):
    """Equal steps in the schedule's time.

    Reference: *Denoising Diffusion Probabilistic Models*, Ho et al., 2020.

    **Arguments:** as in `AbstractGrid`.
    """

    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            begin = float(schedule.time_of_level(level_max))
            end = float(schedule.time_of_level(level_min))
            times = np.linspace(begin, end, self.num_steps + 1)[1:-1]
            inner = [float(schedule.level(float(t))) for t in times]
        return np.array([level_max, *inner, level_min])


class CustomGrid(AbstractGrid):
    """The given levels: a sampler begins at the first and stops at the last of them.

    **Arguments:**

    - `levels`: falling, all positive, within those of the schedule. A last level of 0
        is the data, where every sampler ends, and may be left out.
    """

    values: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, levels: tuple[float, ...] | list[float] | np.ndarray):
        array = falling("levels", levels)
        array = array[array > 0.0]
        if len(array) < 2:
            raise ValueError(
                f"levels={tuple(levels)}: a grid has two or more levels above 0"
            )
        self.values = tuple(float(level) for level in array)
        self.num_steps = len(array) - 1
        self.level_max, self.level_min = self.values[0], self.values[-1]

    def beginning_at(self, level: float) -> "CustomGrid":
        """Return the levels below another one, and that before them."""
        level = positive("start[1]", level)
        below = [value for value in self.values if value < level * (1.0 - ROUNDING)]
        if not below:
            raise ValueError(
                f"start[1] = {level:g} is not above the last level of the grid, "
                f"{self.values[-1]:g}"
            )
        return CustomGrid([level, *below])

    def between(
        self,
        level_max: float,
        level_min: float,
        *,
        schedule: AbstractSchedule,
        shape: tuple[int, ...],
    ) -> np.ndarray:
        return np.asarray(self.values)
