"""Errors inside a program that runs on several devices.

`eqx.error_if`, and with it `throw=True` of diffrax, lineax and optimistix, raises from
a callback of the first device. The others then wait for it at the next collective, for
ever. So in a program of several devices each such check gives NaN instead of the value
that it guards, and the engine looks at the results on the host.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxprs_in_params

from .rewrite import calling, rewritten, with_inner


def has_checks(jaxpr: Any) -> bool:
    """Return whether a jaxpr holds a check of Equinox that would raise."""
    return any(
        _is_check(eqn) or any(map(has_checks, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def checks_give_nan(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose failed checks give NaN or the largest integer and go on.

    Under a `vmap` of it only those parts give NaN whose own checks fail.
    """
    return rewritten(function, _rewrite)


def check_metrics(info: dict[str, np.ndarray], num: int, following: int) -> None:
    """Raise what a check inside the last `num` steps would have raised on one device.

    **Raises:** `FloatingPointError` with the step, counted back from the `following`.
    """
    finite = np.all([np.isfinite(values) for values in info.values()], 0)
    bad = np.flatnonzero(~np.atleast_1d(finite)[:num])
    if bad.size:
        raise FloatingPointError(
            f"step {following - num + int(bad[0])} gave metrics that are not "
            "finite, in a program with checks (eqx.error_if, or a solve with "
            "throw=True). On several devices they cannot raise and give NaN: run "
            "the step on one device, without layout, to read which one failed"
        )


def _rewrite(jaxpr):
    conditions = {
        var
        for eqn in jaxpr.eqns
        if any(map(has_checks, jaxprs_in_params(eqn.params)))
        for var in eqn.invars
        if not isinstance(var, Literal)
    }
    return jaxpr.replace(
        eqns=[
            calling(eqn, jnp.any)  # of each part of a `vmap`, not of all at once
            if eqn.primitive.name == "unvmap_any" and eqn.outvars[0] in conditions
            else _rewrite_equation(eqn)
            for eqn in jaxpr.eqns
        ]
    )


def _rewrite_equation(eqn):
    if _is_check(eqn):
        shapes = [v.aval for v in eqn.outvars]
        return calling(eqn, lambda *_: [_nan_like(shape) for shape in shapes])
    return with_inner(eqn, _rewrite)


def _is_check(eqn):
    if eqn.primitive.name != "pure_callback":
        return False
    callback = getattr(eqn.params["callback"], "callback_func", None)
    return getattr(callback, "__module__", "").startswith("equinox.")


def _nan_like(shape):
    if jnp.issubdtype(shape.dtype, jnp.inexact):
        return jnp.full(shape.shape, jnp.nan, shape.dtype)
    if jnp.issubdtype(shape.dtype, jnp.integer):
        return jnp.full(shape.shape, np.iinfo(shape.dtype).max, shape.dtype)
    return jnp.ones(shape.shape, shape.dtype)
