r"""Quantiles of the mixture over all sampled models, in one row."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num, PyTree

from .families import family_of
from .likelihood import Likelihood
from .row_statistics import cdf, component, each_sample, marginal, reject_classes

_BISECTIONS = 50
_DOUBLINGS = 100
_LARGEST = 2**30


def quantile(
    likelihood: Likelihood, outputs: PyTree, q: Float[Array, ""]
) -> Num[Array, "*out"]:
    """Return the q-quantile of the mixture, by bisection between two bounds.

    Of whole numbers it is the smallest y whose distribution function is q or more.
    """
    first = component(likelihood, outputs)
    reject_classes(first, "quantile")
    first = marginal(first)
    if family_of(first).is_classification:
        raise ValueError("class labels have no quantile: use probs")
    if first.is_discrete:
        return _of_counts(likelihood, outputs, q, first)
    return _of_reals(likelihood, outputs, q)


def _of_counts(likelihood, outputs, q, first: Any) -> Int[Array, "*out"]:
    def is_below(y):
        value = cdf(likelihood, outputs, y)
        # Sums of probabilities are rounded: F(y) = 0.95 may come out below it.
        return value < q.astype(value.dtype) * (1 - 4 * jnp.finfo(value.dtype).eps)

    lowest = jnp.asarray(getattr(first.support, "lower_bound", 0), jnp.int32)
    low = jnp.broadcast_to(lowest - 1, first.batch_shape)

    def go_on(width):
        return jnp.any(is_below(low + width)) & jnp.all(width < _LARGEST)

    width = jnp.ones_like(low)
    high = low + jax.lax.while_loop(
        go_on, lambda w: jnp.where(is_below(low + w), 2 * w, w), width
    )

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) // 2
        below = is_below(middle)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    # Of integers, 31 halvings leave low + 1 = high.
    return jax.lax.fori_loop(0, 31, halve, (low, high))[1]


def _of_reals(likelihood, outputs, q) -> Float[Array, "*out"]:
    def bracket(p):
        p = marginal(p)
        try:
            mean, variance = p.mean, p.variance
        except NotImplementedError:
            mean = variance = jnp.full(p.batch_shape, jnp.nan)
        try:
            level = jnp.broadcast_to(q, p.batch_shape).astype(mean.dtype)
            return p.icdf(level), mean, variance
        except (NotImplementedError, ImportError):
            return None, mean, variance

    values, means, variances = each_sample(bracket, likelihood, outputs)
    if values is not None:
        low, high = jnp.min(values, 0), jnp.max(values, 0)
    else:
        # Cantelli's inequality is valid for any distribution with a variance; without
        # one the interval is doubled until it contains the quantile.
        mean = jnp.mean(means, 0)
        std = jnp.sqrt(jnp.var(means, 0) + jnp.mean(variances, 0))
        known = jnp.isfinite(mean) & jnp.isfinite(std)
        below = mean - std * jnp.sqrt((1 - q) / q).astype(std.dtype)
        above = mean + std * jnp.sqrt(q / (1 - q)).astype(std.dtype)
        low, high = jnp.where(known, below, -1.0), jnp.where(known, above, 1.0)
    low, high = jax.lax.stop_gradient((low, high))
    level = q.astype(low.dtype)

    def is_below(y):
        return cdf(likelihood, outputs, y) < level

    if values is None:
        low, high = _widened(is_below, low, high)

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        below = is_below(middle)
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return _solution(lambda y: cdf(likelihood, outputs, y), low + (high - low) / 2)


def _solution(function, y):
    """y, with the derivative of the solution of `function(y) = level`.

    Bisection has no derivative. By the implicit function theorem dy = -dF / F'(y).
    """
    value, slope = jax.jvp(function, (y,), (jnp.ones_like(y),))
    slope = jax.lax.stop_gradient(jnp.where(slope > 0, slope, jnp.inf))
    return y - (value - jax.lax.stop_gradient(value)) / slope


def _widened(is_below, low, high):
    """Intervals doubled at the end beyond which the quantile is."""

    def beyond(ends):
        low, high = ends
        return ~is_below(low), is_below(high)

    def go_on(carry):
        count, ends = carry
        left, right = beyond(ends)
        return jnp.any(left | right) & (count < _DOUBLINGS)

    def double(carry):
        count, (low, high) = carry
        left, right = beyond((low, high))
        width = high - low
        low, high = (
            jnp.where(left, low - width, low),
            jnp.where(right, high + width, high),
        )
        return count + 1, (low, high)

    return jax.lax.while_loop(go_on, double, (0, (low, high)))[1]
