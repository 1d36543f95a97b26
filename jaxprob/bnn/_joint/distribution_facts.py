"""Distribution functions and means of angles that numpyro does not have."""

from typing import Any

import jax.numpy as jnp
from jax.scipy.special import betainc
from jaxtyping import Array

from .information_roots import mean_length, number


def binomial(p: Any, y: Array) -> Array:
    """Return P(Y <= y) of n trials, the incomplete beta function at n - y and y + 1."""
    num, y = number(p.total_count), number(y)
    inside = betainc(jnp.maximum(num - y, 1.0), y + 1.0, 1.0 - number(p.probs))
    return jnp.where(y < num, inside, 1.0)


def geometric(p: Any, y: Array) -> Array:
    """Return P(Y <= y) = 1 - (1 - p)^(y + 1), for failures before a success."""
    return -jnp.expm1((number(y) + 1.0) * jnp.log1p(-number(p.probs)))


def von_mises_resultant(p: Any) -> Array:
    """Return the mean of (cos y, sin y): the direction, times I_1 / I_0."""
    loc, length = jnp.broadcast_arrays(p.loc, mean_length(number(p.concentration)))
    direction = jnp.stack([jnp.cos(loc), jnp.sin(loc)], -1)
    return length[..., None].astype(direction.dtype) * direction
