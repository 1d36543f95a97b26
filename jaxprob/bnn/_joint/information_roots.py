r"""Roots of the expected information of distributions over one number.

Each function `root(p, at, moves)` is the $\varphi$ of `expected_information` in the
distribution's own arguments.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e, i1e, polygamma
from jaxtyping import Array

from ...tree._single import single
from .._weights.scale import real

EULER = 0.5772156649015329
"""The Euler-Mascheroni constant."""

Root: TypeAlias = Callable[[Any, Any, Any], Array | None]
"""`root(p, at, moves) -> varphi`, of the shape of the batch and one axis more.

`at` is the same distribution, held constant; `moves` has a bool for each argument that
says whether it depends on the output. `None` where the information is not known.
"""


def number(value: Any) -> Array:
    """Return a number or an array in floating point, in single precision at least."""
    return single(real(value))


def stack(*roots: Any) -> Array:
    """Return the entries of a root along a last axis."""
    return jnp.stack(jnp.broadcast_arrays(*map(number, roots)), -1)


def nonzero(value: Any) -> Array:
    """Return the value, bounded away from zero so that it can be divided by."""
    value = number(value)
    return jnp.maximum(value, jnp.finfo(value.dtype).tiny)


def pair(first: Any, second: Any, aa: Any, ab: Any, bb: Any) -> Array:
    """Return the root of two arguments with the information ((aa, ab), (ab, bb)).

    It is the product of the Cholesky factor and the arguments.
    """
    low = jnp.sqrt(aa)
    cross = ab / low
    return stack(low * first + cross * second, jnp.sqrt(bb - cross**2) * second)


def location_scale_root(loc: float, scale: float, cross: float = 0.0) -> Root:
    """Return the root of a location and a scale.

    **Arguments:**

    - `loc`, `scale`, `cross`: their information at unit scale.
    """

    def root(p, at, moves):
        first, second = p.loc / at.scale, p.scale / at.scale
        if not cross:
            return stack(math.sqrt(loc) * first, math.sqrt(scale) * second)
        return pair(first, second, *map(number, (loc, cross, scale)))

    return root


def student_t_root(p: Any, at: Any, moves: Any) -> Array | None:
    if moves.df:
        return None
    df = number(at.df)
    loc = jnp.sqrt((df + 1.0) / (df + 3.0)) * p.loc / at.scale
    return stack(loc, jnp.sqrt(2.0 * df / (df + 3.0)) * p.scale / at.scale)


def scale_root(information: float) -> Root:
    """Return the root of a scale whose information at unit scale is given."""
    return lambda p, at, moves: stack(math.sqrt(information) * p.scale / at.scale)


def asymmetric_laplace_root(p: Any, at: Any, moves: Any) -> Array | None:
    if moves.asymmetry:
        return None
    # The slopes on both sides are 1 / (scale asymmetry) and asymmetry / scale.
    return stack(p.loc / at.scale, p.scale / at.scale)


def mean_length(concentration: Array) -> Array:
    """Return A = I_1 / I_0, the length of the mean vector of a von Mises."""
    return i1e(concentration) / i0e(concentration)


def mean_length_slope(concentration: Array) -> Array:
    """Return the derivative of `mean_length`, 1 - A / k - A^2.

    The differences cancel for large k, where the asymptotic series has all digits.
    """
    k = nonzero(concentration)
    length = mean_length(k)
    near = 1.0 - length / k - length**2
    large = jnp.maximum(k, 1.0)
    series = jnp.array([2.03125, 0.78125, 0.375, 0.25, 0.5], k.dtype)
    far = jnp.polyval(series, 1.0 / large) / large**2
    return jnp.where(k > 20.0, far, near)


def von_mises_root(p: Any, at: Any, moves: Any) -> Array | None:
    k = number(at.concentration)
    direction = jnp.sqrt(k * mean_length(k)) * p.loc
    return stack(direction, jnp.sqrt(mean_length_slope(k)) * p.concentration)


def gamma_root(p: Any, at: Any, moves: Any) -> Array | None:
    a, rate = number(at.concentration), number(at.rate)
    cross = -1.0 / rate
    # In this order the factor's second entry is that of the concentration alone.
    return pair(p.rate, p.concentration, a / rate**2, cross, polygamma(1, a))


def beta_root(p: Any, at: Any, moves: Any) -> Array | None:
    a, b = number(at.concentration1), number(at.concentration0)
    both = polygamma(1, a + b)
    return pair(
        p.concentration1,
        p.concentration0,
        polygamma(1, a) - both,
        -both,
        polygamma(1, b) - both,
    )


def negative_binomial_root(p: Any, at: Any, moves: Any) -> Array | None:
    # The information of the concentration is an infinite sum.
    if moves.concentration:
        return None
    a, rate = number(at.concentration), number(at.rate)
    return stack(jnp.sqrt(a / (1.0 + rate)) * p.rate / rate)


def negative_binomial_logits_root(p: Any, at: Any, moves: Any) -> Array | None:
    if moves.total_count:
        return None
    a, logits = number(at.total_count), number(at.logits)
    return stack(jnp.sqrt(a * jax.nn.sigmoid(logits)) * p.logits)


def weibull_root(p: Any, at: Any, moves: Any) -> Array | None:
    scale, k = number(at.scale), number(at.concentration)
    cross = -(1.0 - EULER) / scale
    second = (math.pi**2 / 6.0 + (1.0 - EULER) ** 2) / k**2
    return pair(p.scale, p.concentration, (k / scale) ** 2, cross, second)


def bernoulli_logits_root(p: Any, at: Any, moves: Any) -> Array | None:
    logits = number(at.logits)
    information = jax.nn.sigmoid(logits) * jax.nn.sigmoid(-logits)
    return stack(jnp.sqrt(information) * p.logits)


def bernoulli_probs_root(p: Any, at: Any, moves: Any) -> Array | None:
    probs = number(at.probs)
    return stack(p.probs / jnp.sqrt(nonzero(probs * (1.0 - probs))))


def trials(root: Root) -> Root:
    """Return the root of a sum of independent trials, each with the given root."""

    def scaled(p, at, moves):
        if moves.total_count:
            return None
        one = root(p, at, moves)
        return (
            None if one is None else jnp.sqrt(number(at.total_count))[..., None] * one
        )

    return scaled


def geometric_probs_root(p: Any, at: Any, moves: Any) -> Array | None:
    probs = nonzero(at.probs)
    return stack(p.probs / (probs * jnp.sqrt(nonzero(1.0 - probs))))


def geometric_logits_root(p: Any, at: Any, moves: Any) -> Array | None:
    return stack(jnp.sqrt(jax.nn.sigmoid(-number(at.logits))) * p.logits)


def exponential_root(p: Any, at: Any, moves: Any) -> Array | None:
    return stack(p.rate / nonzero(at.rate))


def poisson_root(p: Any, at: Any, moves: Any) -> Array | None:
    return stack(p.rate / jnp.sqrt(nonzero(at.rate)))
