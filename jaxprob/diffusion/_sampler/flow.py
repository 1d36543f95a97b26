r"""The probability flow as one equation for all schedules, and its coordinates.

In $x = x_t/\alpha_t$ and the level $s = \sigma_t/\alpha_t$ it is $dx/ds = (x - D)/s$.
Adaptive solvers take $y = x/\sqrt{1 + s^2}$, which stays of order one, over w with
$-\log s = c + h \sinh(w/h)$: as in `FocusedGrid`, steps are longest far from the levels
at which the structure of the data is decided.
"""

from collections.abc import Callable
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._denoiser.denoiser import AbstractDenoiser, at_level
from .._types import Cond, Scalar

# c and h. They were chosen on eight Gaussians: see docs/diffusion.md.
_CENTRE, _WIDTH = 1.0, 3.0

# Largest step in w. At high noise y hardly moves, so the controller grows its step
# until one of them jumps over the levels at which modes are chosen, unseen by the error
# estimate.
LARGEST_STEP = 0.8


def flow_field(
    denoiser: AbstractDenoiser, y: Float[Array, "*shape"], u: Scalar, cond: Cond
) -> Float[Array, "*shape"]:
    r"""Return $dy/du$ of the probability flow at $u = -\log s$.

    $$\frac{dy}{du} = \frac{D - x / (1 + s^2)}{\sqrt{1 + s^2}}$$
    """
    # 1/(1 + s^2) from log s, without overflow.
    shrink2: Scalar = jax.nn.sigmoid(2.0 * u)
    shrink = jnp.sqrt(shrink2)
    x = y / shrink
    return shrink * (at_level(denoiser, x, jnp.exp(-u), cond) - shrink2 * x)


def bent(u: np.ndarray | float) -> Any:
    """Return the w of a u, on the host."""
    return _WIDTH * np.arcsinh((u - _CENTRE) / _WIDTH)


def in_bent(field: Callable[[Scalar, PyTree], PyTree]) -> Callable:
    """Return the right-hand side in w of one in u."""

    def bent_field(w, state):
        slope = jnp.cosh(w / _WIDTH)
        change = field(_CENTRE + _WIDTH * jnp.sinh(w / _WIDTH), state)
        return jax.tree.map(lambda leaf: slope * leaf, change)

    return bent_field


def first_stage(
    solver: dfx.AbstractSolver, right_hand_side: Callable, t0: Scalar, y0: PyTree
) -> Any:
    """Return the state of a solver that has its first stage already.

    diffrax evaluates the first stage again with every step it rejects before it has
    accepted one. The result is `None` for a solver without such a stage.
    """
    tableau = _tableau(solver)
    if tableau is None or not tableau.fsal:
        return None
    return jnp.asarray(False), right_hand_side(t0, y0)


def num_evaluations(solver: dfx.AbstractSolver, num_steps: Array) -> Array:
    """Return the evaluations of the right-hand side, of accepted and rejected steps.

    Explicit Runge-Kutta methods whose last stage is the first of the next step evaluate
    one less in each step, and once before the first (`first_stage`). The result is -1
    for solvers of other kinds.
    """
    if isinstance(solver, dfx.Euler):
        return num_steps
    tableau = _tableau(solver)
    if tableau is None:
        return jnp.full_like(num_steps, -1)
    fsal = int(tableau.fsal)
    return (tableau.num_stages - fsal) * num_steps + fsal


def _tableau(solver):
    """Return the tableau of an explicit Runge-Kutta method, or `None`."""
    if not isinstance(solver, dfx.AbstractERK):
        return None
    tableau = solver.tableau
    return tableau if isinstance(tableau, dfx.ButcherTableau) else None
