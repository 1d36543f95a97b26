"""Sampling by the probability flow, with any diffrax solver."""

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, in_noise_units
from .._schedule.level_checks import check_coordinate, check_within, positive
from .._types import Cond
from .ends import begin, finish
from .flow import (
    LARGEST_STEP,
    bent,
    first_stage,
    flow_field,
    in_bent,
    num_evaluations,
)
from .grid import AbstractGrid, as_grid, with_grid
from .grids import LogLevelGrid
from .sampler import AbstractSampler, Draw

_NUM_SAVED = 32  # levels in the trajectory of an adaptive solve


class ODESampler(AbstractSampler):
    r"""Solves the probability flow from noise to data.

    With $x = x_t/\alpha_t$ and $s = \sigma_t/\alpha_t$ the probability flows of all
    schedules are one equation, $dx/ds = (x - D)/s$. We solve it for
    $y = x/\sqrt{1 + s^2}$, which stays of order one, in $u = -\log s$:

    $$\frac{dy}{du} = \frac{D - x / (1 + s^2)}{\sqrt{1 + s^2}}.$$

    For standard normal data the right-hand side is zero.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 4.3.

    ```python
    sampler = ODESampler()                            # adaptive
    sampler = ODESampler(KarrasGrid(18), dfx.Heun())  # fixed steps
    ```

    **Arguments:**

    - `grid`: noise levels of fixed steps, or a number of steps of `LogLevelGrid`. By
        default steps are adaptive.
    - `solver`: any diffrax solver of ODEs; `diffrax.Tsit5()` by default.
    - `rtol`, `atol`: tolerances of adaptive steps, in units of the data's standard
        deviation. Steps differ between examples: a batch takes as long as its hardest
        one.
    - `adaptive`: whether the solver chooses its own steps. With a grid it then begins
        and stops at the grid's ends, and a trajectory is saved at the grid's levels.
    - `max_steps`: number of adaptive steps after which the solver gives up.
    - `shared_steps`: whether `sample` solves its examples as one system, whose steps
        are chosen for the one with the largest error. By default each example chooses
        its own: in one batch both cost the slowest example's steps, but alone, an
        example does not depend on its neighbours.
    """

    grid: AbstractGrid
    solver: dfx.AbstractSolver
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    adaptive: bool = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    shared_steps: bool = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int | None = None,
        solver: dfx.AbstractSolver | None = None,
        *,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        adaptive: bool | None = None,
        max_steps: int = 4096,
        shared_steps: bool = False,
    ):
        self.grid = as_grid(_NUM_SAVED if grid is None else grid, LogLevelGrid)
        self.solver = dfx.Tsit5() if solver is None else solver
        self.rtol = rtol
        self.atol = atol
        self.adaptive = grid is None if adaptive is None else adaptive
        self.max_steps = max_steps
        self.shared_steps = shared_steps

    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
        start: Float[Array, "..."] | None = None,
    ) -> Draw:
        levels = self.levels(denoiser, shape)
        x = begin(denoiser, float(levels[0]), shape, cond, key=key, start=start)
        unit, _ = denoiser.standardised()
        x, evaluations, failed, path = self._solve(
            x, levels, lambda u, y: flow_field(unit, y, u, cond), save=trajectory
        )
        return finish(denoiser, x, levels, path, cond, evaluations + 1, failed)

    def draw_many(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        keys: Key[Array, " num"],
        cond: PyTree = None,
        trajectory: bool = False,
        start: Float[Array, "num ..."] | None = None,
    ) -> Draw:
        if not self.shared_steps:
            settings = {"cond": cond, "trajectory": trajectory, "start": start}
            return super().draw_many(denoiser, shape, keys=keys, **settings)
        levels = self.levels(denoiser, shape)
        high = float(levels[0])

        def first(key, cond, start):
            return begin(denoiser, high, shape, cond, key=key, start=start)

        x = jax.vmap(first)(keys, cond, start)
        unit, _ = denoiser.standardised()

        def field(u, y):
            return jax.vmap(lambda y, cond: flow_field(unit, y, u, cond))(y, cond)

        x, evaluations, failed, path = self._solve(
            x, levels, field, save=trajectory, norm=_largest_rms
        )
        path = None if path is None else jnp.moveaxis(path, 0, 1)

        def end(x, path, cond):
            return finish(denoiser, x, levels, path, cond, evaluations + 1, failed)

        return jax.vmap(end)(x, path, cond)

    def flow(
        self,
        denoiser: AbstractDenoiser,
        x: Float[Array, "*shape"],
        level_from: float,
        level_to: float,
        *,
        cond: Cond = None,
    ) -> tuple[Float[Array, "*shape"], Array, Array]:
        r"""Carry one $x = x_t/\alpha_t$ along the flow between two noise levels.

        `schedule.perturb` gives $x_t$: `schedule.unscaled(x_t, t)` divides it, and
        `schedule.scaled(x, t)` is its inverse.

        **Arguments:**

        - `denoiser`: the model.
        - `x`: where the flow starts.
        - `level_from`, `level_to`: noise levels $\sigma_t/\alpha_t$ of the denoiser's
            schedule; either may be the larger one.
        - `cond`: what the denoiser is conditioned on.

        **Returns:** x at `level_to`, the number of evaluations of the denoiser, and
        whether the solver gave up.
        """
        ends = {
            "level_from": positive("level_from", level_from),
            "level_to": positive("level_to", level_to),
        }
        check_within(denoiser.schedule, **ends)
        unit, units = in_noise_units(denoiser)
        x = units.to_unit(x)
        if level_from > level_to:
            check_coordinate(x, level_from)

        levels = np.array([level_from, level_to])
        if not self.adaptive:
            levels = self.grid.levels_of_flow(
                level_from, level_to, schedule=denoiser.schedule, shape=x.shape
            )
        x, evaluations, failed, _ = self._solve(
            x, levels, lambda u, y: flow_field(unit, y, u, cond)
        )
        return units.to_data(x), evaluations, failed

    def beginning_at(self, level: float) -> AbstractSampler:
        return with_grid(self, self.grid.beginning_at(level))

    def levels(self, denoiser: AbstractDenoiser, shape: tuple[int, ...]) -> np.ndarray:
        """Return the levels of fixed steps, or of an adaptive solve's trajectory."""
        return self.grid.levels(denoiser.schedule, shape)

    def _solve(self, x, levels, field, *, save=False, norm=None):
        """Solve in y from the first of some levels to the last.

        **Returns:** x there, the number of evaluations, whether the solver gave up, and
        x at all levels if `save`.
        """
        dtype, points, growth = x.dtype, -np.log(levels), np.hypot(1.0, levels)
        if self.adaptive:
            points, field = bent(points), in_bent(field)
            control = dfx.PIDController(
                rtol=self.rtol,
                atol=self.atol,
                dtmax=LARGEST_STEP,
                **({} if norm is None else {"norm": norm}),
            )
            # diffrax chooses 0.01 for a wrapped term; a rejected step costs less.
            first = np.copysign(LARGEST_STEP, points[-1] - points[0])
            steps, points = self.max_steps, jnp.asarray(points, dtype)
        else:
            points = jnp.asarray(points, dtype)
            control, steps, first = dfx.StepTo(points), len(points), None
        start = x / jnp.asarray(growth[0], dtype)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, y, args: field(w, y)),
            self.solver,
            t0=points[0],
            t1=points[-1],
            dt0=first,
            y0=start,
            stepsize_controller=control,
            saveat=dfx.SaveAt(t1=True, ts=points if save else None),
            solver_state=first_stage(self.solver, field, points[0], start),
            max_steps=steps,
            throw=False,
        )
        assert solution.ys is not None
        growth = jnp.asarray(growth, dtype)
        x = solution.ys[-1] * growth[-1]
        path = jax.vmap(jnp.multiply)(solution.ys[:-1], growth) if save else None
        failed = solution.result != dfx.RESULTS.successful
        count = num_evaluations(self.solver, solution.stats["num_steps"])
        return x, count, failed, path


def _largest_rms(y):
    """Return the root mean square of the worst example."""
    return jnp.sqrt(jnp.max(jnp.mean(y**2, axis=tuple(range(1, y.ndim)))))
