r"""One unknown under five names: what a network may predict, in terms of one another.

At the level $s = \sigma_t/\alpha_t$, $x = x_t/\alpha_t = x_0 + s z$. Each of these
determines $x_0$ and is determined by it:

| name | definition | $x_0$ in terms of it |
|---|---|---|
| `x0` | $x_0$ | itself |
| `eps` | $z = (x - x_0)/s$ | $x - s z$ |
| `score` | $g = -z/\sigma$ | $x + s \sigma g$ |
| `v` | $v = \alpha z - \sigma x_0$ | $(x - s v/\alpha)/(1 + s^2)$ |
| `velocity` | $u = \dot\alpha x_0 + \dot\sigma z$ | see `to_x0` |

The velocity $dx_t/dt$ alone depends on how fast a schedule's level grows.

Reference: *Progressive Distillation for Fast Sampling of Diffusion Models*, Salimans
and Ho, 2022 (v); *Flow Matching for Generative Modeling*, Lipman et al., 2023.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._schedule.schedule import AbstractSchedule
from .._types import Level

PARAMETERISATIONS = ("x0", "eps", "score", "v", "velocity")


def to_x0(
    name: str,
    value: Float[Array, "*shape"],
    schedule: AbstractSchedule,
    *,
    x: Float[Array, "*shape"],
    level: Level,
) -> Float[Array, "*shape"]:
    r"""Return $x_0$ from one of `PARAMETERISATIONS`.

    **Arguments:**

    - `name`: which one `value` is.
    - `value`: its value at `(x, level)`.
    - `schedule`: which defines `score`, `v` and `velocity`.
    - `x`: one noisy example, $x_t/\alpha_t$.
    - `level`: its noise level $\sigma_t/\alpha_t$.
    """
    level = jnp.asarray(level, x.dtype)
    match name:
        case "x0":
            return value
        case "eps":
            return x - level * value
        case "score":
            return x + level**2 * schedule.alpha_of_level(level) * value
        case "v":
            alpha = schedule.alpha_of_level(level)
            return (x - level / alpha * value) / (1.0 + level**2)
        case "velocity":
            alpha_dot, sigma_dot = _rates(schedule, level)
            return (sigma_dot * x - level * value) / (sigma_dot - level * alpha_dot)
    raise unknown(name)


def from_x0(
    name: str,
    x_0: Float[Array, "*shape"],
    schedule: AbstractSchedule,
    *,
    x: Float[Array, "*shape"],
    level: Level,
) -> Float[Array, "*shape"]:
    """Return one of `PARAMETERISATIONS` from $x_0$; the inverse of `to_x0`."""
    if name == "x0":
        return x_0
    level = jnp.asarray(level, x.dtype)
    eps = (x - x_0) / level
    match name:
        case "eps":
            return eps
        case "score":
            return -eps / (level * schedule.alpha_of_level(level))
        case "v":
            return schedule.alpha_of_level(level) * (eps - level * x_0)
        case "velocity":
            alpha_dot, sigma_dot = _rates(schedule, level)
            return alpha_dot * x_0 + sigma_dot * eps
    raise unknown(name)


def _rates(schedule, level):
    t = schedule.time_of_level(level)
    return schedule.alpha_dot(t), schedule.sigma_dot(t)


def unknown(name: str, names: tuple[str, ...] = PARAMETERISATIONS) -> ValueError:
    """Return the error for a name that is none of them."""
    return ValueError(
        f"{name!r} is not a parameterisation: write one of {', '.join(names)}"
    )
