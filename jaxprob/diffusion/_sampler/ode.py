"""Sampling by the probability flow, with any diffrax solver."""

import functools

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_noise_level, in_noise_units
from .._schedule.level_checks import check_coordinate, check_within, positive
from .._types import Cond, Scalar
from .grids import (
    AbstractGrid,
    LogSNR,
    check_num_steps,
    falling_levels,
    levels_between,
)
from .sampler import AbstractSampler, Draw, begin, finish

# Adaptive steps are taken in w with u = CENTRE + WIDTH sinh(w / WIDTH): as in
# `Focused`, they are longest far from the levels at which structure is decided.
CENTRE, WIDTH = 1.0, 3.0

# At high noise y hardly moves, so that the controller grows its step until one of them
# jumps over the noise levels at which modes are chosen, unseen by the error estimate.
LARGEST_STEP = 0.8


class ODESampler(AbstractSampler):
    r"""Solves the probability flow from noise to data.

    With $x = x_t/\alpha_t$ and $s = \sigma_t/\alpha_t$ the probability flows of all
    schedules are one equation, $dx/ds = (x - D)/s$. We solve it for
    $y = x/\sqrt{1 + s^2}$, which stays of order one, in $u = -\log s$:

    $$\frac{dy}{du} = \frac{D - x / (1 + s^2)}{\sqrt{1 + s^2}}.$$

    For standard normal data the right-hand side is zero. The last step from
    `level_min` to the data is the denoiser itself.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 4.3.

    ```python
    sampler = ODESampler()                                       # adaptive
    sampler = ODESampler(dfx.Heun(), num_steps=18, grid=Karras())  # fixed
    ```

    **Arguments:**

    - `solver`: any diffrax solver of ODEs.
    - `rtol`, `atol`: tolerances of the adaptive steps, in units of the data's standard
        deviation. Steps differ between examples: a batch takes as long as its hardest
        one.
    - `num_steps`: if given, so many fixed steps instead.
    - `grid`: where the fixed steps are. A `CustomGrid` says where to begin and to stop
        as well.
    - `level_min`: noise level to stop at, in units of the data's standard deviation as
        all levels are. Choose it well below the finest structure of the data; 0.002 in
        Karras et al.
    - `level_max`: noise level to begin at; the schedule's end by default, at most 1000.
        Samples begin there with the mean and the covariance that the denoiser tells.
    - `max_steps`: after which the solver gives up.
    - `together`: whether `sample` solves its examples as one system, whose steps are
        chosen for the one with the largest error. Each example alone chooses its own
        by default: in one batch both cost the slowest example's steps, but alone, an
        example does not depend on its neighbours.
    """

    solver: dfx.AbstractSolver
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    num_steps: int | None = eqx.field(static=True)
    grid: AbstractGrid
    level_min: float = eqx.field(static=True)
    level_max: float | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    together: bool = eqx.field(static=True)

    def __init__(
        self,
        solver: dfx.AbstractSolver | None = None,
        *,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        num_steps: int | None = None,
        grid: AbstractGrid | None = None,
        level_min: float = 0.002,
        level_max: float | None = None,
        max_steps: int = 4096,
        together: bool = False,
    ):
        if num_steps is not None:
            check_num_steps(num_steps)
        self.solver = dfx.Tsit5() if solver is None else solver
        self.rtol = rtol
        self.atol = atol
        self.num_steps = num_steps
        self.grid = LogSNR() if grid is None else grid
        self.level_min = level_min
        self.level_max = level_max
        self.max_steps = max_steps
        self.together = together

    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
    ) -> Draw:
        levels = self.levels(denoiser, shape)
        high, low = float(levels[0]), float(levels[-1])
        x = begin(denoiser, high, key, shape, cond)
        points = levels if trajectory else None
        field = functools.partial(flow_field, denoiser.standardised()[0])
        x, evaluations, failed, path = self._solve(
            denoiser, x, high, low, lambda u, y: field(y, -u, cond), points
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
    ) -> Draw:
        if not self.together:
            return super().draw_many(
                denoiser, shape, keys=keys, cond=cond, trajectory=trajectory
            )
        levels = self.levels(denoiser, shape)
        high, low = float(levels[0]), float(levels[-1])
        x = jax.vmap(lambda key, cond: begin(denoiser, high, key, shape, cond))(
            keys, cond
        )
        points = levels if trajectory else None
        unit, _ = denoiser.standardised()

        def field(u, y):
            return jax.vmap(lambda y, cond: flow_field(unit, y, -u, cond))(y, cond)

        x, evaluations, failed, path = self._solve(
            denoiser, x, high, low, field, points, norm=_largest_rms
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
        r"""Carries one $x = x_t/\alpha_t$ along the flow between two noise levels.

        What `schedule.perturb` gives is $x_t$: `schedule.unscaled(x_t, t)` divides it,
        and `schedule.scaled(x, t)` is its inverse.

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

        def field(u, y):
            return flow_field(unit, y, -u, cond)

        x, evaluations, failed, _ = self._solve(
            denoiser, x, level_from, level_to, field, None
        )
        return units.to_data(x), evaluations, failed

    def levels(self, denoiser: AbstractDenoiser, shape: tuple[int, ...]) -> np.ndarray:
        """The levels of the fixed steps, or of the trajectory of an adaptive solve."""
        num = 32 if self.num_steps is None else self.num_steps
        grid, ends = self.grid.for_shape(shape), (self.level_min, self.level_max)
        return falling_levels(grid, denoiser.schedule, *ends, num)

    def _solve(self, denoiser, x, level_from, level_to, field, points, norm=None):
        dtype = x.dtype
        begin, end = -np.log(level_from), -np.log(level_to)
        right_hand_side, place = field, np.asarray
        if self.num_steps is None:
            begin, end, place = bent(begin), bent(end), bent
            right_hand_side = in_bent(field)
            control = dfx.PIDController(
                rtol=self.rtol,
                atol=self.atol,
                dtmax=LARGEST_STEP,
                **({} if norm is None else {"norm": norm}),
            )
            # diffrax chooses 0.01 for a wrapped term; a rejected step costs less.
            steps, first = self.max_steps, np.copysign(LARGEST_STEP, end - begin)
        else:
            levels = levels_between(
                self.grid.for_shape(x.shape),
                denoiser.schedule,
                level_from,
                level_to,
                self.num_steps,
            )
            # The grid's logarithms end where the solve ends, to the bit.
            grid = jnp.asarray(-np.log(levels), dtype)
            control, steps, first = dfx.StepTo(grid), len(levels), None
            begin, end = grid[0], grid[-1]
        begin, end = jnp.asarray(begin, dtype), jnp.asarray(end, dtype)
        asked = None
        if points is not None:
            # Rounding must not carry a point beyond the ends.
            asked = jnp.asarray(place(-np.log(points)), dtype)
            asked = jnp.clip(asked, begin, end)
        start = x / jnp.asarray(np.hypot(1.0, level_from), dtype)
        save = dfx.SaveAt(t1=True) if asked is None else dfx.SaveAt(t1=True, ts=asked)
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, y, args: right_hand_side(w, y)),
            self.solver,
            t0=begin,
            t1=end,
            dt0=first,
            y0=start,
            stepsize_controller=control,
            saveat=save,
            solver_state=begun(self.solver, right_hand_side, begin, start),
            max_steps=steps,
            throw=False,
        )
        assert solution.ys is not None
        x = solution.ys[-1] * jnp.asarray(np.hypot(1.0, level_to), dtype)
        path = None
        if points is not None:
            scale = jnp.asarray(np.hypot(1.0, points), dtype)
            path = jax.vmap(jnp.multiply)(solution.ys[:-1], scale)
        failed = solution.result != dfx.RESULTS.successful
        count = num_evaluations(self.solver, solution.stats["num_steps"])
        return x, count, failed, path


def bent(u):
    """The w of a u; see `CENTRE`."""
    return WIDTH * np.arcsinh((u - CENTRE) / WIDTH)


def in_bent(field):
    """The right-hand side in w of one in u."""

    def bent_field(w, state):
        slope = jnp.cosh(w / WIDTH)
        change = field(CENTRE + WIDTH * jnp.sinh(w / WIDTH), state)
        return jax.tree.map(lambda leaf: slope * leaf, change)

    return bent_field


def _largest_rms(y):
    """The root mean square of the worst example: all are as accurate as asked for."""
    return jnp.sqrt(jnp.max(jnp.mean(y**2, axis=tuple(range(1, y.ndim)))))


def flow_field(denoiser, y, log_level, cond):
    """dy/du of the probability flow at u = -log_level; see `ODESampler`."""
    # 1/sqrt(1 + s^2) and 1/(1 + s^2) from log s, without overflow.
    shrink2: Scalar = jax.nn.sigmoid(-2.0 * log_level)
    shrink = jnp.sqrt(shrink2)
    x = y / shrink
    return shrink * (at_noise_level(denoiser, x, log_level, cond) - shrink2 * x)


def begun(solver, right_hand_side, t0, y0):
    """State of a solver that knows its first stage already, for `diffeqsolve`.

    diffrax evaluates the first stage again with every step it rejects before it has
    accepted one. It takes none from a solver without such a stage.
    """
    tableau = solver.tableau if isinstance(solver, dfx.AbstractERK) else None
    if not isinstance(tableau, dfx.ButcherTableau) or not tableau.fsal:
        return None
    return jnp.asarray(False), right_hand_side(t0, y0)


def num_evaluations(solver, num_steps):
    """Evaluations of the right-hand side in so many steps, accepted and rejected.

    Explicit Runge-Kutta methods whose last stage is the first of the next step evaluate
    one less in each step, and once before the first (`begun`). Minus one where a solver
    does not tell.
    """
    tableau = getattr(solver, "tableau", None)
    if isinstance(solver, dfx.Euler):
        per_step, once = 1, 0
    elif isinstance(solver, dfx.AbstractERK):
        assert tableau is not None
        per_step, once = tableau.num_stages - tableau.fsal, int(tableau.fsal)
    else:
        return jnp.full_like(num_steps, -1)
    return per_step * num_steps + once
