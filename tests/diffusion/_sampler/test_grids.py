"""The argument object of a sampler that says at which noise levels it steps."""

import diffrax as dfx
import numpy as np
import pytest

from jaxprob.diffusion import (
    DDIM,
    EDM,
    VP,
    AbstractGrid,
    CustomGrid,
    DPMSolverPP,
    ExpAB,
    FocusedGrid,
    Heun,
    KarrasGrid,
    LogLevelGrid,
    ODESampler,
    Preconditioned,
    PredictorCorrector,
    SDESampler,
)
from tests.unhooked import unhooked

DEFAULTS = {
    DDIM: LogLevelGrid,
    DPMSolverPP: LogLevelGrid,
    ExpAB: FocusedGrid,
    Heun: KarrasGrid,
    ODESampler: LogLevelGrid,
    PredictorCorrector: LogLevelGrid,
    SDESampler: LogLevelGrid,
}
samplers = pytest.mark.parametrize("kind", DEFAULTS, ids=lambda kind: kind.__name__)


@samplers
def test_a_number_is_so_many_steps_of_the_default_grid(kind):
    sampler, grid = kind(7), DEFAULTS[kind](7)
    assert sampler.grid == grid
    assert (grid.level_min, grid.level_max) == (0.002, None)
    assert isinstance(kind().grid, DEFAULTS[kind])


@samplers
def test_a_grid_is_taken_as_it_is(kind):
    grid = KarrasGrid(5, level_min=0.05, level_max=9.0)
    denoiser = Preconditioned(lambda x, c, cond, *, key: x, EDM())
    levels = kind(grid).levels(denoiser, (2,))
    assert len(levels) == 6
    np.testing.assert_allclose(levels[[0, -1]], [9.0, 0.05])


@samplers
@pytest.mark.parametrize("grid", [KarrasGrid, "karras", 3.0])
def test_anything_else_is_rejected(kind, grid):
    with unhooked(), pytest.raises(TypeError, match=r"grid.*Grid\(18\)"):
        kind(grid)


def test_an_ode_is_adaptive_without_a_grid():
    assert ODESampler().adaptive
    assert not ODESampler(8).adaptive
    assert not ODESampler(KarrasGrid(8), dfx.Heun()).adaptive
    assert ODESampler(LogLevelGrid(8, level_min=0.1), adaptive=True).adaptive


def test_ends_are_cut_to_the_levels_of_the_schedule():
    levels = LogLevelGrid(4, level_min=1e-6, level_max=1e6).levels(
        EDM(40.0, t_min=0.01), (2,)
    )
    np.testing.assert_allclose(levels, np.geomspace(40.0, 0.01, 5), rtol=1e-5)
    # A schedule without an end begins at 1000.
    levels = LogLevelGrid(4).levels(VP(lambda t: 50.0 * t, t_max=1.0), (2,))
    np.testing.assert_allclose(levels[0], 1e3, rtol=1e-5)


def test_focused_steps_are_a_fifth_as_long_at_the_centre():
    grid = FocusedGrid(4000, width=0.5, level_min=1e-4, level_max=1e4)
    levels = grid.levels(EDM(1e5, t_min=1e-5), (2,))
    steps = -np.diff(np.log(levels))
    middle = np.argmin(np.abs(np.log(levels) + 1.0))
    assert abs(steps[0] / steps[middle] - 5.0) < 0.05
    # An image of 64x64 has a plateau of 1.75 log(4096 / 784) above the centre.
    wide = grid.levels(EDM(1e5, t_min=1e-5), (1, 64, 64))
    steps = -np.diff(np.log(wide))
    within = (np.log(wide[1:]) > -1.0) & (np.log(wide[:-1]) < -1.0 + 2.89)
    assert steps[within].max() / steps[within].min() < 1.01


def test_a_custom_grid_has_its_own_ends_and_number():
    grid = CustomGrid([5.0, 1.0, 0.5, 0.0])
    assert (grid.num_steps, grid.level_max, grid.level_min) == (2, 5.0, 0.5)


class Halves(AbstractGrid):
    """A grid as a user may write it."""

    def between(self, level_max, level_min, *, schedule, shape):
        inner = level_max * 0.5 ** np.arange(1, self.num_steps)
        return np.array([level_max, *inner, level_min])


def test_a_grid_of_the_users():
    levels = Halves(3, level_max=8.0).levels(EDM(), (2,))
    np.testing.assert_allclose(levels, [8.0, 4.0, 2.0, 0.002], rtol=1e-5)
