"""Test for models that can be differentiated backwards alone."""

from collections.abc import Callable
from typing import Any

import jax


def has_forward_mode(derivative: Callable[..., Any], *tangents: Any) -> bool:
    """Return whether a forward derivative can be traced.

    A model with a `custom_vjp` rule, such as an ODE solved by diffrax, has none.

    **Arguments:**

    - `derivative`: computes it.
    - `tangents`: its arguments.
    """
    try:
        jax.eval_shape(derivative, *tangents)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        return False
    return True
