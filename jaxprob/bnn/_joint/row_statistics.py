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
from .families import base, cdf_of, family_of
from .joint_distribution import JointDistribution
from .likelihood import Likelihood
from .target import check_target, log_likelihood_of


def moments(
    likelihood: Likelihood, outputs: PyTree
) -> tuple[Float[Array, "*out"], Float[Array, "*out"], Float[Array, "*out"]]:
    """Return the mean, the variance of the means, and the mean of the variances."""

    first = component(likelihood, outputs)
    single_target(first)
    resultant = family_of(first).resultant
    if resultant is not None:
        return _circular(each_sample(lambda p: resultant(base(p)), likelihood, outputs))

    def one(p):
        reject_classes(p, "mean or variance")
        try:
            return p.mean, p.variance
        except NotImplementedError:
            raise NotImplementedError(
                f"numpyro's {type(p).__name__} has no mean or variance: use log_prob, "
                "sample, cdf or quantile"
            ) from None

    means, variances = each_sample(one, likelihood, outputs)
    return jnp.mean(means, 0), jnp.var(means, 0), jnp.mean(variances, 0)


def _circular(resultants):
    r"""Circular mean and variances of mean resultant vectors, one for each sample.

    The variance is $-2 \log R$, whose root is the circular standard deviation. That of
    the mixture is split where the directions are averaged: with $\bar R_s$ the mean of
    the lengths, $-2 \log \bar R_s$ is the noise, and what is left is not negative.
    """
    mean = jnp.mean(resultants, 0)
    length = jnp.linalg.norm(mean, axis=-1)
    lengths = jnp.mean(jnp.linalg.norm(resultants, axis=-1), 0)
    epistemic = jnp.maximum(-2.0 * jnp.log(length / lengths), 0.0)
    return jnp.arctan2(mean[..., 1], mean[..., 0]), epistemic, -2.0 * jnp.log(lengths)


def log_prob(likelihood: Likelihood, outputs: PyTree, y: PyTree) -> Float[Array, ""]:
    """Return the log-density of the mixture."""
    terms = each_sample(lambda p: log_likelihood_of(p, y), likelihood, outputs)
    return jax.nn.logsumexp(terms) - math.log(terms.shape[0])


def cdf(
    likelihood: Likelihood, outputs: PyTree, y: Num[Array, "*out"]
) -> Float[Array, "*out"]:
    """Return the distribution function of the mixture, for each output."""

    def one(p):
        reject_classes(p, "distribution function")
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

    return jnp.mean(each_sample(one, likelihood, outputs), 0)


def _cdf(p, y):
    """Distribution function; outside of the support numpyro's may be NaN."""
    low = getattr(p.support, "lower_bound", None)
    high = getattr(p.support, "upper_bound", None)
    value = cdf_of(p, y if low is high is None else jnp.clip(y, low, high))
    if low is not None:
        value = jnp.where(y < low, 0.0, value)
    return value if high is None else jnp.where(y > high, 1.0, value)


def information(
    likelihood: Likelihood, outputs: PyTree
) -> tuple[Float[Array, "*classes"], Float[Array, "*out"], Float[Array, "*out"]]:
    """Return class probabilities, their entropy, and the mutual information."""

    def probs(p):
        p = marginal(p)
        return _classes(p).probs(p)

    each = each_sample(probs, likelihood, outputs)
    binary = family_of(component(likelihood, outputs)).is_binary
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

    terms = each_sample(log_probs, likelihood, outputs)
    return jax.nn.logsumexp(terms, 0) - math.log(terms.shape[0])


def has_quantiles(p: Any) -> bool:
    """Return whether each output is a number and has a distribution function."""
    p = base(p)
    if isinstance(p, JointDistribution) or p.event_shape:
        return False
    if family_of(p).is_classification:
        return False
    y = jnp.zeros(p.batch_shape, int if p.is_discrete else float)
    try:
        with jax.numpy_dtype_promotion("standard"):
            jax.eval_shape(lambda: _cdf(p, y))
    except NotImplementedError:
        return False
    return True


def sample(
    likelihood: Likelihood, outputs: PyTree, key: PRNGKey, part: Num[Array, ""]
) -> PyTree:
    """Return a draw of y from the sampled model of index `part`."""
    p: Any = likelihood(jax.tree.map(lambda a: a[part], outputs))
    return p.sample(key)


def marginal(p: Any) -> Any:
    """Return the distribution of each output separately, without `to_event`."""
    single_target(p)
    p = base(p)
    if p.event_shape and not family_of(p).is_classification:
        raise ValueError(
            f"{type(p).__name__} has no distribution function or quantile for each "
            "output: use log_prob and sample"
        )
    return p


def single_target(p: Any) -> None:
    """Reject a distribution over several targets, each of which has its statistics."""
    if isinstance(p, JointDistribution):
        raise TypeError(
            f"the likelihood has the targets {', '.join(p.names)}, each with its own "
            f"statistics: ask for them by name, predictive[{p.names[0]!r}]"
        )


def component(likelihood: Likelihood, outputs: PyTree) -> Any:
    """Return the distribution of the first sampled model."""
    return likelihood(jax.tree.map(lambda a: a[0], outputs))


def each_sample(
    function: Callable[[Any], Any], likelihood: Likelihood, outputs: PyTree
):
    """`function(distribution)` for each sample's output.

    It returns arrays, because a distribution that leaves the vmap would have the batch
    shape that it had inside.
    """
    return jax.vmap(lambda output: function(likelihood(output)))(outputs)


def _classes(p):
    """The family of a distribution over class labels."""
    single_target(p)
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


def reject_classes(p: Any, what: str) -> None:
    """Reject labels of more than two classes."""
    single_target(p)
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
