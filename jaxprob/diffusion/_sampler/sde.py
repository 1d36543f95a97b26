"""Sampling by the reverse SDE, with diffrax's stochastic solvers."""

import math

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level
from .._types import Cond
from .ends import begin, finish
from .grid import AbstractGrid, as_grid, with_grid
from .grids import LogLevelGrid
from .sampler import AbstractSampler, Draw

_EVALUATIONS = {dfx.Euler: 1, dfx.SEA: 1, dfx.SRA1: 2, dfx.ShARK: 2, dfx.Heun: 2}


class SDESampler(AbstractSampler):
    r"""Solves the reverse SDE from noise to data, in fixed steps.

    With $x = x_t/\alpha_t$, $s = \sigma_t/\alpha_t$ and $u = -\log s$, which grows as
    noise goes, the reverse SDEs of all schedules are

    $$dx = (1 + \eta^2)(D - x)\,du + \eta \sqrt2\, s\,dw_u.$$

    All $\eta$ have the same marginals; $\eta = 1$ is the time reversal of the forward
    process and 0 the probability flow. We solve for $y = x/\sqrt{1+s^2}$ as in
    `ODESampler`. The noise is additive, so Ito and Stratonovich agree and the solvers
    `SEA`, `SRA1` and `ShARK` apply, of higher order than Euler.

    Time runs forwards: diffrax's stochastic Runge-Kutta solvers are wrong with a
    negative step (versions up to 0.7.2).

    Prefer `ODESampler` for few evaluations. The SDE forgets early errors, so with many
    evaluations its samples are often better.

    Reference: *Score-Based Generative Modeling through Stochastic Differential
    Equations*, Song et al., 2021, section 3.2; *Elucidating the Design Space of
    Diffusion-Based Generative Models*, Karras et al., 2022, equation 6.

    **Arguments:**

    - `grid`: noise levels between which the solver steps, or a number of steps of
        `LogLevelGrid`.
    - `solver`: `diffrax.Euler()` (Euler-Maruyama, the default), `SEA()`, as cheap and
        better, `SRA1()`, `ShARK()`, or any other for additive noise.
    - `eta`: how much noise, $\eta \ge 0$.
    - `brownian_tree`: whether the Brownian path is a `diffrax.VirtualBrownianTree`: the
        same noise on every grid, and derivatives with respect to the model, but slower.
    """

    grid: AbstractGrid
    solver: dfx.AbstractSolver
    eta: float = eqx.field(static=True)
    brownian_tree: bool = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid | int = 250,
        solver: dfx.AbstractSolver | None = None,
        *,
        eta: float = 1.0,
        brownian_tree: bool = False,
    ):
        if not 0.0 <= eta < math.inf:
            raise ValueError(f"eta={eta}: give the size of the noise, at least 0")
        self.grid = as_grid(grid, LogLevelGrid)
        self.solver = dfx.Euler() if solver is None else solver
        self.eta = eta
        self.brownian_tree = brownian_tree

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
        start_key, path_key = jax.random.split(key)
        levels = self.levels(denoiser, shape)
        x = begin(denoiser, float(levels[0]), shape, cond, key=start_key, start=start)
        unit, _ = denoiser.standardised()
        points = jnp.asarray(-np.log(levels), x.dtype)

        def drift(u, y, args):
            shrink2 = jax.nn.sigmoid(2.0 * u)
            shrink = jnp.sqrt(shrink2)
            x = y / shrink
            d = at_level(unit, x, jnp.exp(-u), cond)
            return shrink * (d - shrink2 * x + self.eta**2 * (d - x))

        def diffusion(u, y, args):
            # sqrt(2) s / sqrt(1 + s^2)
            size = self.eta * jnp.sqrt(2.0 * jax.nn.sigmoid(-2.0 * u))
            return lx.DiagonalLinearOperator(jnp.full(y.shape, size, y.dtype))

        brownian, adjoint = self._brownian(points, x, path_key)
        solution = dfx.diffeqsolve(
            dfx.MultiTerm(dfx.ODETerm(drift), dfx.ControlTerm(diffusion, brownian)),
            self.solver,
            t0=points[0],
            t1=points[-1],
            dt0=None,
            y0=x / jnp.asarray(np.hypot(1.0, levels[0]), x.dtype),
            stepsize_controller=dfx.StepTo(points),
            max_steps=len(levels),
            saveat=dfx.SaveAt(t1=True, ts=points if trajectory else None),
            adjoint=adjoint,
            throw=False,
        )
        assert solution.ys is not None
        x = solution.ys[-1] * jnp.asarray(np.hypot(1.0, levels[-1]), x.dtype)
        per_step = _EVALUATIONS.get(type(self.solver))
        steps = solution.stats["num_steps"]
        count = jnp.full_like(steps, -1) if per_step is None else per_step * steps + 1
        failed = solution.result != dfx.RESULTS.successful
        path = None
        if trajectory:
            growth = jnp.asarray(np.hypot(1.0, levels), x.dtype)
            path = jax.vmap(jnp.multiply)(solution.ys[:-1], growth)
        return finish(denoiser, x, levels, path, cond, count, failed)

    def beginning_at(self, level: float) -> AbstractSampler:
        return with_grid(self, self.grid.beginning_at(level))

    def levels(self, denoiser: AbstractDenoiser, shape: tuple[int, ...]) -> np.ndarray:
        return self.grid.levels(denoiser.schedule, shape)

    def _brownian(self, points, x, key):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        area = _increment(self.solver)
        if not self.brownian_tree:
            # New noise in each step: only forward differentiation can follow it.
            path = dfx.UnsafeBrownianPath(shape, key, levy_area=area)
            return path, dfx.ForwardMode()
        # The tree must be finer than the steps, or steps share their noise.
        finest = jnp.min(jnp.diff(points)) / 2.0
        path = dfx.VirtualBrownianTree(
            points[0], points[-1], finest, shape, key, levy_area=area
        )
        return path, dfx.RecursiveCheckpointAdjoint()


def _increment(solver):
    """Return the kind of Brownian increment that a solver needs."""
    if isinstance(solver, dfx.AbstractSRK):
        for area in (dfx.SpaceTimeLevyArea, dfx.SpaceTimeTimeLevyArea):
            if issubclass(area, solver.minimal_levy_area):
                return area
    return dfx.BrownianIncrement
