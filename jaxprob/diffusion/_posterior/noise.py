"""The noise of a measurement: Gaussian, or any distribution of independent entries."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, Shaped

from .._types import Scalar

Likelihood: TypeAlias = Callable[[Array], dist.Distribution]
"""A function from the prediction A(x) to the distribution of y."""

# Draws for the Fisher information of a distribution without a closed form here. The
# relative error of a weight is at most about 1 / sqrt(2 * 256) = 4 %.
_NUM_DRAWS = 256


def log_prob(
    noise: Array | Likelihood,
    y: Shaped[Array, "*shape"],
    prediction: Float[Array, "*shape"],
    missing: Bool[Array, "*shape"],
) -> Scalar:
    """Return the log-probability of the entries of y that are there.

    **Arguments:**

    - `noise`: standard deviations of the shape of y, or a function of the prediction.
    - `y`: the measurement; entries that are missing hold any value of its support.
    - `prediction`: A(x).
    - `missing`: entries that were not measured.
    """
    if jnp.issubdtype(y.dtype, jnp.floating):
        y = y.astype(prediction.dtype)
    values = _distribution(noise, prediction).log_prob(y)
    _check_entries(noise, values, y)
    return jnp.sum(jnp.where(missing, 0.0, values))


def weights_and_residuals(
    noise: Array | Likelihood,
    y: Shaped[Array, "*shape"],
    prediction: Float[Array, "*shape"],
    missing: Bool[Array, "*shape"],
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    r"""Return $\sqrt F$ and $g/\sqrt F$ for each entry, at a prediction p.

    $g = \partial_p \log p(y \mid p)$ is the gradient and $F = E[g^2]$ the Fisher
    information. The likelihood is then close to that of a Gaussian measurement of p
    with variance 1/F whose residual is g/F (Fisher scoring). For Gaussian noise it is
    exactly $1/\sigma$ and $(y - p)/\sigma$. Both are 0 where y is missing.
    """
    if not callable(noise):
        weights = 1.0 / noise.astype(prediction.dtype)
        residuals = (y.astype(prediction.dtype) - prediction) * weights
    else:
        residuals, weights = _fisher(noise, y, prediction)
    zero = jnp.zeros_like(prediction)
    return jnp.where(missing, zero, weights), jnp.where(missing, zero, residuals)


def _fisher(noise, y, prediction):
    def gradient(y):
        def total(prediction):
            values = _distribution(noise, prediction).log_prob(y)
            _check_entries(noise, values, y)
            return jnp.sum(values)

        return jax.grad(total)(prediction)

    if jnp.issubdtype(y.dtype, jnp.floating):
        y = y.astype(prediction.dtype)
    # A fixed key: the information is a function of the prediction, not a random number.
    there = _distribution(noise, jax.lax.stop_gradient(prediction))
    draws = jax.vmap(there.sample)(jax.random.split(jax.random.key(0), _NUM_DRAWS))
    information = jnp.mean(jax.vmap(gradient)(draws) ** 2, axis=0)
    positive = information > 0.0
    weights = jnp.where(positive, jnp.sqrt(jnp.where(positive, information, 1.0)), 0.0)
    residuals = jnp.where(
        positive, gradient(y) / jnp.where(positive, weights, 1.0), 0.0
    )
    return residuals, weights


def _distribution(noise, prediction):
    if not callable(noise):
        return dist.Normal(prediction, noise.astype(prediction.dtype))
    found: Any = noise(prediction)
    if isinstance(found, dist.Distribution):
        return found
    raise TypeError(
        f"noise returned a {type(found).__name__}: return the numpyro distribution of "
        "y for a prediction, e.g. noise=lambda rate: dist.Poisson(rate)"
    )


def _check_entries(noise, values, y):
    if values.shape != y.shape:
        raise ValueError(
            f"the distribution of noise has a log_prob of shape {values.shape} for y "
            f"of shape {y.shape}: return one distribution for each entry of y, without "
            "to_event; entries are independent given x"
        )
