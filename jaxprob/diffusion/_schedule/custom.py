"""A schedule of any two functions of time."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._types import Scalar, Time
from .schedule import AbstractSchedule, check_ends


class CustomSchedule(AbstractSchedule):
    r"""The schedule of a user's $\alpha_t$ and $\sigma_t$; the rest is derived.

    Rates are derivatives by automatic differentiation, and the time of a noise level is
    found by a table and Newton's method. `VP` is for a rate of noise.

    ```python
    schedule = CustomSchedule(lambda t: 1.0 - t**2, lambda t: t, t_min=1e-3)
    ```

    **Arguments:**

    - `alpha`: $\alpha_t$, a function of one time that is 1 at `t_min`. An Equinox
        module with arrays makes the schedule trainable, as in `VP`.
    - `sigma`: $\sigma_t$, likewise, nearly 0 at `t_min`. Where it is a difference of
        numbers near 1 it needs a form that keeps its digits there, e.g.
        `jnp.sqrt(-jnp.expm1(-b))` for $\sqrt{1 - e^{-b}}$.
    - `t_max`, `t_min`: ends of time.

    **Raises:** `ValueError` or `TypeError` that names the function and the time, where
    the noise level does not rise from clean data, a value is not finite, or `sigma` has
    lost its digits.
    """

    alpha_of_time: Callable[..., Any]
    sigma_of_time: Callable[..., Any]
    t_min: float = eqx.field(static=True)
    t_max: float = eqx.field(static=True)

    def __init__(
        self,
        alpha: Callable,
        sigma: Callable,
        t_max: float = 1.0,
        *,
        t_min: float = 0.0,
    ):
        check_ends("CustomSchedule", t_min, t_max)
        for name, function in (("alpha", alpha), ("sigma", sigma)):
            if not callable(function):
                raise TypeError(
                    f"{name}={function!r} is a {type(function).__name__}: give a "
                    "function of the time, CustomSchedule(lambda t: 1.0 - t, "
                    "lambda t: t)"
                )
        self.alpha_of_time = alpha
        self.sigma_of_time = sigma
        self.t_min = float(t_min)
        self.t_max = float(t_max)
        self.check()

    def alpha(self, t: Time) -> Scalar:
        return _as_float(self.alpha_of_time, t)

    def sigma(self, t: Time) -> Scalar:
        return _as_float(self.sigma_of_time, t)


def _as_float(function, t):
    t = jnp.asarray(t)
    t = t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(float)
    # A constant, such as `lambda t: 1.0`, is a Python number.
    return jnp.asarray(function(t), t.dtype)
