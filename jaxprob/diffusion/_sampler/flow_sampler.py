"""Sampling by a velocity field: from the source to the data."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._types import Model, PRNGKey
from ...tree._inference_mode import inference_mode
from .._denoiser.units import along_leading
from .._schedule.argument_checks import check_count, check_kind
from .._types import Cond
from .._velocity.source import AbstractSource, NormalSource, check_source_shape
from .._velocity.velocity_field import AbstractVelocityField, check_field
from .flow import first_stage, num_evaluations
from .sampler import AbstractSampler, Draw

_NUM_SAVED = 32  # times in the trajectory of an adaptive solve

# A straight flow lets the controller grow its step until it jumps over the times at
# which modes are chosen, unseen by the error estimate.
_LARGEST_STEP, _FIRST_STEP = 0.25, 0.1


class FlowSampler(AbstractSampler):
    r"""Solves $dx/dt = v(x, t)$ from an example of the source to one of the data.

    ```python
    draws = sample(field, FlowSampler(), key=key, num_samples=64, shape=(2,))
    ```

    **Arguments:**

    - `source`: that of the loss; `NormalSource()` by default.
    - `num_steps`: equal steps in t; by default steps are adaptive.
    - `solver`: any diffrax solver of ODEs; `diffrax.Tsit5()` by default. Few steps are
        best taken by `diffrax.Heun()` or, along straight paths, `diffrax.Euler()`.
    - `rtol`, `atol`: tolerances of adaptive steps, in units of the field's scale.
    - `max_steps`: number of adaptive steps after which the solver gives up.
    - `t_from`: time of the examples at which samples begin, 0 at the source. Those of a
        later time are given, `sample(..., start=(x, t))`, which sets it.

    `Draw.levels` are the times of `Draw.path`, from 0 to 1.
    """

    level_name: ClassVar[str] = "time"

    source: AbstractSource
    num_steps: int | None = eqx.field(static=True)
    solver: dfx.AbstractSolver
    rtol: float = eqx.field(static=True)
    atol: float = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)
    t_from: float = eqx.field(static=True)

    def __init__(
        self,
        source: AbstractSource | None = None,
        num_steps: int | None = None,
        solver: dfx.AbstractSolver | None = None,
        *,
        rtol: float = 1e-4,
        atol: float = 1e-4,
        max_steps: int = 4096,
        t_from: float = 0.0,
    ):
        self.source = NormalSource() if source is None else source
        check_kind("source", self.source, AbstractSource, "give that of the loss")
        if num_steps is not None:
            check_count("num_steps", num_steps, "take at least one step")
        self.num_steps = num_steps
        self.solver = dfx.Tsit5() if solver is None else solver
        self.rtol = rtol
        self.atol = atol
        self.max_steps = max_steps
        self.t_from = t_from
        check_times(t_from, 1.0)

    def beginning_at(self, level: float) -> AbstractSampler:
        settings = {"rtol": self.rtol, "atol": self.atol, "max_steps": self.max_steps}
        return FlowSampler(
            self.source, self.num_steps, self.solver, t_from=float(level), **settings
        )

    def check_model(self, model: Model) -> None:
        check_field(model)

    def answer(
        self, model: Model, x: Float[Array, "*shape"], level: Any, cond: Cond
    ) -> Float[Array, "*shape"]:
        return inference_mode(model).velocity(x, jnp.asarray(level, x.dtype), cond)

    def draw(
        self,
        denoiser: Model,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
        start: Float[Array, "..."] | None = None,
    ) -> Draw:
        self.check_model(denoiser)
        if start is None and self.t_from > 0.0:
            raise ValueError(
                f"t_from={self.t_from}: give the examples of that time at which the "
                "samples begin, sample(..., start=(x, t))"
            )
        x = self.source.draw(shape, key=key) if start is None else start
        x = check_source_shape(x, shape)
        times = np.linspace(self.t_from, 1.0, 1 + (self.num_steps or _NUM_SAVED))
        path, count, failed = self._solve(denoiser, x, times, cond, save=trajectory)
        if not trajectory:
            return Draw(path[-1], count, failed)
        return Draw(path[-1], count, failed, path, jnp.asarray(times, x.dtype))

    def flow(
        self,
        field: AbstractVelocityField,
        x: Float[Array, "*shape"],
        t_from: float = 0.0,
        t_to: float = 1.0,
        *,
        cond: Cond = None,
    ) -> tuple[Float[Array, "*shape"], Array, Array]:
        """Carry one example along the flow between two times.

        **Arguments:**

        - `field`: the model.
        - `x`: where the flow starts; an example of the source at `t_from=0`.
        - `t_from`, `t_to`: times in [0, 1]; either may be the larger one.
        - `cond`: what the field is conditioned on.

        **Returns:** x at `t_to`, the number of evaluations of the field, and whether
        the solver gave up.
        """
        check_field(field)
        check_times(t_from, t_to)
        times = np.linspace(t_from, t_to, 1 + (self.num_steps or 1))
        path, count, failed = self._solve(field, x, times, cond)
        return path[-1], count, failed

    def _solve(self, field, x, times, cond, *, save=False):
        field = inference_mode(field)
        unit = along_leading(field.scale(), x)
        path, count, failed = solve_in_time(
            lambda t, y: field.velocity(unit * y, t, cond) / unit,
            x / unit,
            times,
            self.solver,
            adaptive=self.num_steps is None,
            rtol=self.rtol,
            atol=self.atol,
            max_steps=self.max_steps,
            save=save,
        )
        return path * unit[None], count, failed


def check_times(t_from: float, t_to: float) -> None:
    """Check two times of a flow, numbers of the host.

    **Raises:** `ValueError` for equal times, or times outside [0, 1].
    """
    for name, t in (("t_from", t_from), ("t_to", t_to)):
        if not 0.0 <= t <= 1.0:
            raise ValueError(
                f"{name}={t}: times are between 0, the source, and 1, the data"
            )
    if t_from == t_to:
        raise ValueError(f"t_from and t_to are both {t_from}: there is no way to go")


def solve_in_time(
    right_hand_side: Callable[[Any, PyTree], PyTree],
    state: PyTree,
    times: Sequence[float] | np.ndarray,
    solver: dfx.AbstractSolver,
    *,
    adaptive: bool,
    rtol: float,
    atol: float,
    max_steps: int,
    save: bool = False,
) -> tuple[PyTree, Array, Array]:
    """Solve an equation from the first of some times to the last.

    **Arguments:**

    - `right_hand_side`: of `(t, state)`.
    - `state`: at `times[0]`, a tree of arrays of one dtype.
    - `times`: steps that are not adaptive, and times of the states that are saved.
    - `save`: whether to return all states, and not the last alone.

    **Returns:** states with a leading axis of times, the number of evaluations of the
    right-hand side, and whether the solver gave up.
    """
    dtype = jax.tree.leaves(state)[0].dtype
    points = jnp.asarray(times, dtype)
    control = dfx.StepTo(points)
    if adaptive:
        control = dfx.PIDController(rtol=rtol, atol=atol, dtmax=_LARGEST_STEP)
    first = np.copysign(_FIRST_STEP, times[-1] - times[0])
    solution = dfx.diffeqsolve(
        dfx.ODETerm(lambda t, y, args: right_hand_side(t, y)),
        solver,
        t0=points[0],
        t1=points[-1],
        dt0=jnp.asarray(first, dtype) if adaptive else None,
        y0=state,
        stepsize_controller=control,
        saveat=dfx.SaveAt(ts=points) if save else dfx.SaveAt(t1=True),
        solver_state=first_stage(solver, right_hand_side, points[0], state),
        max_steps=max_steps if adaptive else len(times),
        throw=False,
    )
    failed = solution.result != dfx.RESULTS.successful
    return solution.ys, num_evaluations(solver, solution.stats["num_steps"]), failed
