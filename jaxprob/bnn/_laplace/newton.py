"""Newton's method for the maximum of a function of few numbers."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

LONGEST_STEP = 2.0
HALVINGS = 20


def newton_ascent(
    function: Callable[[Float[Array, " dim"]], Float[Array, ""]],
    start: Float[Array, " dim"],
    *,
    num_steps: int,
) -> tuple[Float[Array, " dim"], Bool[Array, ""]]:
    """Return the maximum of a function, and whether it was reached.

    Eigenvalues of the Hessian enter by their absolute values, so that each step goes
    upwards; it is halved until the function rises. Where the gain that the quadratic
    model promises is below the rounding of the function, the maximum is reached.

    Reference: *Convex Optimization*, Boyd and Vandenberghe, 2004, section 9.5.

    **Arguments:**

    - `function`: concave, for convergence from any start; in logarithms, so that a step
        of `LONGEST_STEP` in an entry is long.
    - `start`: finite.
    - `num_steps`: at most.
    """
    eps = jnp.finfo(start.dtype).eps

    def column(x, direction):
        return jax.jvp(jax.grad(function), (x,), (direction,))[1]

    def step(state):
        x, value, _, index = state
        slope = jax.grad(function)(x)
        # One column at a time: a network has many layers and many more eigenvalues.
        hessian = jax.lax.map(lambda d: column(x, d), jnp.eye(x.size, dtype=x.dtype))
        curvatures, basis = jnp.linalg.eigh(-0.5 * (hessian + hessian.T))
        sizes = jnp.abs(curvatures)
        sizes = jnp.maximum(sizes, eps * jnp.max(sizes) + jnp.finfo(x.dtype).tiny)
        along = basis.T @ slope
        gain = jnp.sum(along**2 / sizes)
        full = basis @ (along / sizes)
        full = full / jnp.maximum(jnp.max(jnp.abs(full)) / LONGEST_STEP, 1.0)
        rounding = 10 * eps * (1.0 + jnp.abs(value))
        x, value = _backtrack(function, x, value, full, rounding)
        return x, value, gain <= jnp.maximum(rounding, 0.0), index + 1

    def goes_on(state):
        _, value, done, index = state
        return ~done & jnp.isfinite(value) & (index < num_steps)

    state = (start, function(start), jnp.asarray(False), jnp.asarray(0))
    x, value, done, _ = jax.lax.while_loop(goes_on, step, state)
    return x, done & jnp.isfinite(value) & jnp.all(jnp.isfinite(x))


def _backtrack(function, x, value, full, rounding):
    """The first of the halved steps at which the function has not fallen."""

    def falls(state):
        _, new, count = state
        return ~(new >= value - rounding) & (count < HALVINGS)

    def halve(state):
        part, _, count = state
        part = 0.5 * part
        return part, function(x + part), count + 1

    state = (full, function(x + full), jnp.asarray(0))
    part, new, _ = jax.lax.while_loop(falls, halve, state)
    return x + part, new
