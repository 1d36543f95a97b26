r"""Statistics of y in one row, from the outputs of all sampled models.

Each function takes the likelihood and the outputs, whose leading axis is that of the
samples $s$, and treats them as the mixture $\frac 1 S \sum_s p(y \mid f_{w_s}(x))$.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num, PyTree

from ..._types import PRNGKey
from .families import base, family_of
from .likelihood import Likelihood
from .log_joint import check_target, log_likelihood_of

_BISECTIONS = 50
_DOUBLINGS = 100


def moments(
    likelihood: Likelihood, outputs: PyTree
) -> tuple[Float[Array, "*out"], Float[Array, "*out"], Float[Array, "*out"]]:
    """Return the mean, the variance of the means, and the mean of the variances."""

    def one(p):
        _reject_classes(p, "mean or variance")
        try:
            return p.mean, p.variance
        except NotImplementedError:
            raise NotImplementedError(
                f"numpyro's {type(p).__name__} has no mean or variance: use log_prob, "
                "sample, cdf or quantile"
            ) from None

    means, variances = _each(one, likelihood, outputs)
    return jnp.mean(means, 0), jnp.var(means, 0), jnp.mean(variances, 0)


def log_prob(
    likelihood: Likelihood, outputs: PyTree, y: Num[Array, "*out"]
) -> Float[Array, ""]:
    """Return the log-density of the mixture."""
    terms = _each(lambda p: log_likelihood_of(p, y), likelihood, outputs)
    return jax.nn.logsumexp(terms) - math.log(terms.shape[0])


def cdf(
    likelihood: Likelihood, outputs: PyTree, y: Num[Array, "*out"]
) -> Float[Array, "*out"]:
    """Return the distribution function of the mixture, for each output."""

    def one(p):
        _reject_classes(p, "distribution function")
        check_target(p, y)
        p = marginal(p)
        try:
            # numpyro mixes integer counts and floating-point rates.
            with jax.numpy_dtype_promotion("standard"):
                return _cdf(p, y)
        except NotImplementedError:
            raise NotImplementedError(
                f"numpyro's {type(p).__name__} has no distribution function, which "
                "cdf, quantile and interval need: use log_prob, sample or mean"
            ) from None

    return jnp.mean(_each(one, likelihood, outputs), 0)


def _cdf(p, y):
    """Distribution function; outside of the support numpyro's may be NaN."""
    low = getattr(p.support, "lower_bound", None)
    high = getattr(p.support, "upper_bound", None)
    value = p.cdf(y if low is high is None else jnp.clip(y, low, high))
    if low is not None:
        value = jnp.where(y < low, 0.0, value)
    return value if high is None else jnp.where(y > high, 1.0, value)


def quantile(
    likelihood: Likelihood, outputs: PyTree, q: Float[Array, ""]
) -> Float[Array, "*out"]:
    """Return the q-quantile of the mixture, by bisection between two bounds."""

    def bracket(p):
        _reject_classes(p, "quantile")
        p = marginal(p)
        if p.is_discrete:
            raise ValueError(
                f"{type(p).__name__} is discrete, so quantiles are steps: use probs, "
                "cdf or sample"
            )
        try:
            mean, variance = p.mean, p.variance
        except NotImplementedError:
            mean = variance = jnp.full(p.batch_shape, jnp.nan)
        try:
            level = jnp.broadcast_to(q, p.batch_shape).astype(mean.dtype)
            return p.icdf(level), mean, variance
        except (NotImplementedError, ImportError):
            return None, mean, variance

    values, means, variances = _each(bracket, likelihood, outputs)
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


def information(
    likelihood: Likelihood, outputs: PyTree
) -> tuple[Float[Array, "*classes"], Float[Array, "*out"], Float[Array, "*out"]]:
    """Return class probabilities, their entropy, and the mutual information."""

    def probs(p):
        p = marginal(p)
        return _classes(p).probs(p)

    each = _each(probs, likelihood, outputs)
    first = jax.tree.map(lambda a: a[0], outputs)
    binary = family_of(likelihood(first)).is_binary
    entropy = _binary_entropy if binary else _entropy
    mixture = jnp.mean(each, 0)
    total = entropy(mixture)
    # Rounding may leave -1e-8 of what Jensen's inequality says is positive.
    gain = jnp.maximum(total - jnp.mean(entropy(each), 0), 0.0)
    return mixture, total, gain


def class_log_probs(
    likelihood: Likelihood, outputs: PyTree
) -> Float[Array, "*out classes"]:
    """Return the log-probabilities of the mixture, which do not underflow."""

    def log_probs(p):
        p = marginal(p)
        return _classes(p).log_probs(p)

    terms = _each(log_probs, likelihood, outputs)
    return jax.nn.logsumexp(terms, 0) - math.log(terms.shape[0])


def has_quantiles(p: Any) -> bool:
    """Return whether each output is real and has a distribution function."""
    p = base(p)
    if p.is_discrete or p.event_shape:
        return False
    try:
        jax.eval_shape(lambda: _cdf(p, jnp.zeros(p.batch_shape)))
    except NotImplementedError:
        return False
    return True


def sample(
    likelihood: Likelihood, outputs: PyTree, key: PRNGKey, part: Num[Array, ""]
) -> Num[Array, "*out"]:
    """Return a draw of y from the sampled model of index `part`."""
    p: Any = likelihood(jax.tree.map(lambda a: a[part], outputs))
    return p.sample(key)


def marginal(p: Any) -> Any:
    """Return the distribution of each output separately, without `to_event`."""
    p = base(p)
    if p.event_shape and not family_of(p).is_classification:
        raise ValueError(
            f"{type(p).__name__} has no distribution function or quantile for each "
            "output: use log_prob and sample"
        )
    return p


def _each(function: Callable[[Any], Any], likelihood: Likelihood, outputs: PyTree):
    """`function(distribution)` for each sample's output.

    It returns arrays, because a distribution that leaves the vmap would have the batch
    shape that it had inside.
    """
    return jax.vmap(lambda output: function(likelihood(output)))(outputs)


def _classes(p):
    """The family of a distribution over class labels."""
    family = family_of(p)
    if not family.is_classification:
        raise ValueError(
            f"probs, entropy and mutual_information are for classes, and this "
            f"likelihood is {type(p).__name__}. For a mixture of densities the entropy "
            "has no closed form: -predictive.log_prob(y) averages to it over draws y "
            "of predictive.sample. If it is a distribution over classes, register its "
            "probabilities by bnn.register_family."
        )
    return family


def _reject_classes(p, what):
    family = family_of(p)
    if family.is_classification and not family.is_binary:
        raise ValueError(
            f"class labels have no {what}: use probs, entropy, mutual_information or "
            "log_prob"
        )


def _entropy(probs):
    return -jnp.sum(jax.scipy.special.xlogy(probs, probs), -1)


def _binary_entropy(probs):
    rest = 1.0 - probs
    xlogy = jax.scipy.special.xlogy
    return -xlogy(probs, probs) - xlogy(rest, rest)
