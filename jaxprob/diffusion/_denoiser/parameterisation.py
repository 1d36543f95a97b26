r"""One unknown, six names: what a network may predict, in terms of one another.

Given $x_t = \alpha x_0 + \sigma z$, each of these tells $x_0$ and is told by it:

| name | definition |
|---|---|
| `x0` | $x_0$ |
| `eps` | $z = (x_t - \alpha x_0)/\sigma$ |
| `score` | $-z/\sigma$ |
| `v` | $\alpha z - \sigma x_0$ (Salimans and Ho, 2022) |
| `velocity` | $\dot\alpha x_0 + \dot\sigma z = dx_t/dt$ (Lipman et al., 2023) |
"""

from jaxtyping import Array, Float

from .._schedule.schedule import AbstractSchedule
from .._types import Time

PARAMETERISATIONS = ("x0", "eps", "score", "v", "velocity")


def to_x0(
    name: str,
    value: Float[Array, "*shape"],
    schedule: AbstractSchedule,
    x_t: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """$x_0$ from one of `PARAMETERISATIONS`.

    **Arguments:**

    - `name`: which one `value` is.
    - `value`: its value at `(x_t, t)`.
    - `schedule`, `x_t`, `t`: where it was predicted.
    """
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    match name:
        case "x0":
            return value
        case "eps":
            return (x_t - sigma * value) / alpha
        case "score":
            return (x_t + sigma**2 * value) / alpha
        case "v":
            return (alpha * x_t - sigma * value) / (alpha**2 + sigma**2)
        case "velocity":
            alpha_dot, sigma_dot = schedule.alpha_dot(t), schedule.sigma_dot(t)
            wronskian = sigma_dot * alpha - sigma * alpha_dot
            return (sigma_dot * x_t - sigma * value) / wronskian
    raise unknown(name)


def from_x0(
    name: str,
    x_0: Float[Array, "*shape"],
    schedule: AbstractSchedule,
    x_t: Float[Array, "*shape"],
    t: Time,
) -> Float[Array, "*shape"]:
    """One of `PARAMETERISATIONS` from $x_0$; the inverse of `to_x0`."""
    if name == "x0":
        return x_0
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    eps = (x_t - alpha * x_0) / sigma
    match name:
        case "eps":
            return eps
        case "score":
            return -eps / sigma
        case "v":
            return alpha * eps - sigma * x_0
        case "velocity":
            return schedule.alpha_dot(t) * x_0 + schedule.sigma_dot(t) * eps
    raise unknown(name)


def unknown(name: str, names: tuple[str, ...] = PARAMETERISATIONS) -> ValueError:
    """The error for a name that is none of them."""
    return ValueError(f"{name!r} is no parameterisation; there are {', '.join(names)}")
