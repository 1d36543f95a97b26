"""Errors and log-scores of real outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy import pi

from ._inputs import Weights, check_positive, check_same_shape, floats, mixture, reduce
from ._near_zero import near_zero


def rmse(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    *,
    sample_weight: Weights | None = None,
) -> Float[Array, ""]:
    """Root mean squared error, over all elements.

    **Arguments:**

    - `y`: what was observed.
    - `mean`: what was predicted, of the same shape.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for different shapes (nothing is broadcast), NaN and
    infinite values; `TypeError` for integers.
    """
    y, mean = floats(**near_zero(y=y, mean=mean))
    check_same_shape(y=y, mean=mean)
    return jnp.sqrt(reduce((y - mean) ** 2, sample_weight=sample_weight))


def mae(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    *,
    sample_weight: Weights | None = None,
) -> Float[Array, ""]:
    """Mean absolute error, over all elements; the best prediction is the median.

    **Arguments:** as for `rmse`.
    """
    y, mean = floats(**near_zero(y=y, mean=mean))
    check_same_shape(y=y, mean=mean)
    return reduce(jnp.abs(y - mean), sample_weight=sample_weight)


def _log_normal(y, mean, std):
    return -0.5 * ((y - mean) / std) ** 2 - jnp.log(std) - 0.5 * jnp.log(2.0 * pi)


def gaussian_nll(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    std: Float[Array | np.ndarray, "*shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """Negative log-density of a Gaussian, in nats, mean over all elements.

    For a mixture over posterior samples use `gaussian_mixture_nll`: the Gaussian with
    the mixture's mean and variance is another distribution.

    **Arguments:**

    - `y`: what was observed.
    - `mean`, `std`: of the prediction, of the same shape; `std > 0`.
    - `per_example`: return one value per element.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for different shapes, NaN, or `std` not above zero.
    """
    y, mean, std = floats(**near_zero(y=y, mean=mean), std=std)
    check_same_shape(y=y, mean=mean, std=std)
    check_positive("std", std)
    return reduce(-_log_normal(y, mean, std), per_example, sample_weight)


def gaussian_mixture_nll(
    y: Float[Array | np.ndarray, "*shape"],
    means: Float[Array | np.ndarray, "components *shape"],
    stds: Float[Array | np.ndarray, "components *shape"],
    *,
    weights: Float[Array | np.ndarray, " components"] | None = None,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """Negative log-density of a mixture of Gaussians: -log sum_k w_k N(y | m_k, s_k^2).

    By Jensen's inequality it is at most the mean over the components.

    **Arguments:**

    - `y`: what was observed.
    - `means`, `stds`: one prediction per component (posterior sample, member), along a
        leading axis.
    - `weights`: weights of the components, equal by default.
    - `per_example`: return one value per element.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for shapes that do not agree, NaN, `stds` not above zero,
    or weights that do not sum to one.
    """
    y, means, stds, weights = mixture(y, means, stds, weights)
    logs = jax.vmap(_log_normal, in_axes=(None, 0, 0))(y, means, stds)
    weights = weights.reshape((-1,) + (1,) * y.ndim)
    values = -jax.nn.logsumexp(logs, axis=0, b=jnp.broadcast_to(weights, logs.shape))
    return reduce(values, per_example, sample_weight)
