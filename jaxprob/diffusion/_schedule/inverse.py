"""The inverse of an increasing function, without a loop."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from .._types import Scalar

# Nodes grow by 11 % each, so that a start between two of them is off by about 1e-3, and
# each step of Newton's method squares that. On a CPU this is three times as fast as 40
# bisections, for one level and for 64.
_NODES = np.append(0.0, np.geomspace(1e-7, 1.0, 160))
_NEWTON_STEPS = 3


def inverse_integral(
    int_beta: Callable[..., Scalar], target: Scalar, t_min: float, t_max: float
) -> Scalar:
    """Return the t between `t_min` and `t_max` with `int_beta(t) == target`.

    A table of the function brackets the root, and Newton's method refines it within the
    bracket. Samplers call this inside their own loops for networks that are given the
    time, so there is no loop in it: XLA computes the table once.

    **Arguments:**

    - `int_beta`: an increasing function of one time.
    - `target`: a value between those at the ends.
    - `t_min`, `t_max`: ends of time.
    """
    nodes = jnp.asarray(t_min + (t_max - t_min) * _NODES, target.dtype)
    values = jax.vmap(int_beta)(nodes)
    place = jnp.searchsorted(values, target, method="scan_unrolled")
    place = jnp.clip(place, 1, len(_NODES) - 1)
    low, high = nodes[place - 1], nodes[place]
    begin, end = values[place - 1], values[place]

    def rate(t):
        return jax.jvp(int_beta, (t,), (jnp.ones_like(t),))[1]

    # Neighbours may have equal values where the function underflows near t_min.
    step = jnp.maximum(end - begin, jnp.finfo(target.dtype).tiny)
    t = low + (high - low) * (target - begin) / step
    for _ in range(_NEWTON_STEPS):
        polished = t - (int_beta(t) - target) / rate(t)
        t = jnp.where((polished >= low) & (polished <= high), polished, t)
    root = jax.lax.stop_gradient(t)
    # One more step from the root moves nothing and has the derivatives of the implicit
    # function, with respect to the target and to what int_beta holds.
    residual = int_beta(root) - target
    return root - (residual - jax.lax.stop_gradient(residual)) / jax.lax.stop_gradient(
        rate(root)
    )


# In v = logit of the part of time, a power law at either end has a straight log-level.
# The first node is at 4e-31 of the time; with nodes .3 apart the start is off by 1e-3.
_LOGITS = np.arange(-70.0, 16.1, 0.3)


def inverse_increasing(
    function: Callable[..., Scalar], target: Scalar, low: float, high: float
) -> Scalar:
    """Return the t between `low` and `high` with `function(t) == target`.

    Unlike `inverse_integral` it takes functions that are singular at either end, such
    as the logarithm of a noise level. Values beyond those at the ends give the ends.

    **Arguments:**

    - `function`: an increasing function of one number, possibly infinite at its ends.
    - `target`: a value.
    - `low`, `high`: ends of the argument.
    """
    dtype = jnp.result_type(target, float)

    def at(v):
        return low + (high - low) * jax.nn.sigmoid(v)

    def slope(t):
        return jax.jvp(function, (t,), (jnp.ones_like(t),))[1]

    nodes = jnp.asarray(_LOGITS, dtype)
    values = jax.vmap(lambda v: function(at(v)))(nodes)
    first, last = (function(jnp.asarray(end, dtype)) for end in (low, high))
    inside = jnp.clip(target, values[0], values[-1])
    place = jnp.searchsorted(values, inside, method="scan_unrolled")
    place = jnp.clip(place, 1, len(_LOGITS) - 1)
    begin, end = values[place - 1], values[place]
    # The first values may be infinite, or equal where the function underflows.
    known = jnp.isfinite(begin) & (end > begin)
    part = (inside - begin) / jnp.where(known, end - begin, 1.0)
    v = nodes[place] - jnp.where(known, 1.0 - part, 0.0) * (
        nodes[place] - nodes[place - 1]
    )
    for _ in range(_NEWTON_STEPS):
        t = at(v)
        # dt/dv = (t - low)(high - t) / (high - low)
        rate = slope(t) * (high - low) * jax.nn.sigmoid(v) * jax.nn.sigmoid(-v)
        polished = v - (function(t) - inside) / rate
        right = (polished >= nodes[place - 1]) & (polished <= nodes[place])
        v = jnp.where(right, polished, v)
    t = jax.lax.stop_gradient(at(v))
    # One step in t itself: v has fewer digits than t near an end. It has the
    # derivatives of the implicit function.
    step = (function(t) - inside) / jax.lax.stop_gradient(slope(t))
    t = jnp.clip(t - jnp.where(jnp.isfinite(step), step, 0.0), low, high)
    t = jnp.where(target <= first, low, t)
    return jnp.where(target >= last, high, t).astype(dtype)
