"""Statistics of a predictive that the estimators ask for, as functions of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from .. import bnn


def moments(
    predictive: bnn.Predictive,
) -> tuple[Float[Array, "rows *out"], Float[Array, "rows parts *out"]]:
    """Return the mean and both variances, epistemic and aleatoric, along an axis."""
    parts = (predictive.epistemic, predictive.aleatoric)
    return predictive.mean, jnp.stack(parts, axis=1)


def mean(predictive: bnn.Predictive) -> Float[Array, "rows *out"]:
    """Return the mean alone."""
    return predictive.mean


def components(
    predictive: bnn.Predictive,
) -> tuple[Float[Array, "rows samples *out"], Float[Array, "rows samples *out"]]:
    """Return mean and deviation of the distribution of each sampled model."""

    def one(output):
        p: Any = predictive.likelihood(output)
        return p.mean, jnp.sqrt(p.variance)

    return jax.vmap(jax.vmap(one))(predictive.outputs)


def quantiles(
    predictive: bnn.Predictive, levels: Float[Array, " levels"]
) -> Num[Array, "rows levels *out"]:
    """Return quantiles of each row."""
    return jax.lax.map(predictive.quantile, levels).swapaxes(0, 1)


def log_prob(predictive: bnn.Predictive, z: Any) -> Float[Array, " rows"]:
    """Return the log-density of the mixture."""
    return predictive.log_prob(z)


def cdf(predictive: bnn.Predictive, z: Any) -> Float[Array, "rows *out"]:
    """Return the distribution function of the mixture."""
    return predictive.cdf(z)


def draw(predictive: bnn.Predictive, keys: Any, part: Any) -> Any:
    """Return a target for each row, with its key, from the model of index `part`."""

    def one(output, key):
        p: Any = predictive.likelihood(output)
        return p.sample(key)

    outputs = jax.tree.map(lambda a: a[:, part], predictive.outputs)
    return jax.vmap(one)(outputs, keys)


def classes(
    predictive: bnn.Predictive,
) -> tuple[Float[Array, "rows classes"], Float[Array, " rows"], Float[Array, " rows"]]:
    """Return class probabilities, entropy and mutual information."""
    return predictive.probs, predictive.entropy, predictive.mutual_information
