"""Probability integral transform: F(y) is uniform where the predictive F is right."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from .._types import PRNGKey
from ._inputs import check_positive, check_same_shape, floats, is_concrete, mixture
from ._near_zero import near_zero


def pit_gaussian(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    std: Float[Array | np.ndarray, "*shape"],
) -> Float[Array, "*shape"]:
    """F(y) of Gaussian predictions: Phi((y - m) / s).

    A histogram like a U is overconfidence, like a hump underconfidence, a slope bias.

    **Arguments:** as for `gaussian_nll`.
    """
    y, mean, std = floats(**near_zero(y=y, mean=mean), std=std)
    check_same_shape(y=y, mean=mean, std=std)
    check_positive("std", std)
    return norm.cdf((y - mean) / std)


def pit_gaussian_mixture(
    y: Float[Array | np.ndarray, "*shape"],
    means: Float[Array | np.ndarray, "components *shape"],
    stds: Float[Array | np.ndarray, "components *shape"],
    *,
    weights: Float[Array | np.ndarray, " components"] | None = None,
) -> Float[Array, "*shape"]:
    """F(y) of mixtures of Gaussians: sum_k w_k Phi((y - m_k) / s_k).

    **Arguments:** as for `gaussian_mixture_nll`.
    """
    y, means, stds, weights = mixture(y, means, stds, weights)
    return jnp.tensordot(weights, norm.cdf((y[None] - means) / stds), axes=1)


def pit_samples(
    y: Float[Array | np.ndarray, "*shape"],
    samples: Float[Array | np.ndarray, "num *shape"],
    *,
    key: PRNGKey,
) -> Float[Array, "*shape"]:
    """Randomised PIT from samples: (rank + u) / (n + 1), u uniform.

    The rank of y among n samples of the same law is uniform on 0, ..., n, so this is
    exactly uniform, for any number of samples. Ties are broken at random.

    **Arguments:**

    - `y`: what was observed.
    - `samples`: draws of the predictions, along a leading axis.
    - `key`: of u.
    """
    y, samples = floats(**near_zero(y=y, samples=samples))
    if samples.shape[1:] != y.shape:
        raise ValueError(
            f"samples has shape {samples.shape} and y {y.shape}: samples must be "
            "arrays like y, along a new leading axis"
        )
    below = jnp.sum(samples < y[None], axis=0).astype(y.dtype)
    ties = jnp.sum(samples == y[None], axis=0).astype(y.dtype)
    u = jax.random.uniform(key, y.shape, y.dtype)
    # y stands anywhere among its ties: ranks below, ..., below + ties.
    return (below + u * (ties + 1.0)) / (samples.shape[0] + 1.0)


def quantile_calibration_error(
    pit: Float[Array | np.ndarray, "*shape"], *, num_levels: int = 99
) -> Float[Array, ""]:
    """Mean over levels p of |share of y below the predicted p-quantile - p|.

    y is below its p-quantile where F(y) <= p, so the PIT values are all that is needed.
    In the limit of many levels it is the 1-Wasserstein distance of the PIT values from
    uniform. Accurate Uncertainties for Deep Learning Using Calibrated Regression
    (Kuleshov, Fenner, Ermon, 2018), with absolute in place of squared differences.

    **Arguments:**

    - `pit`: F(y) for each outcome.
    - `num_levels`: levels k / (num_levels + 1), k = 1, ..., num_levels.

    **Raises:** `ValueError` for values outside of [0, 1].
    """
    (pit,) = floats(pit=pit)
    if is_concrete(pit) and ((pit < 0.0) | (pit > 1.0)).any():
        raise ValueError(
            "pit has values outside of [0, 1]: pass F(y), see `pit_gaussian`"
        )
    if num_levels < 1:
        raise ValueError(f"num_levels={num_levels}: at least one is needed")
    levels = jnp.arange(1, num_levels + 1, dtype=pit.dtype) / (num_levels + 1.0)
    ordered = jnp.sort(pit.reshape(-1))
    below = jnp.searchsorted(ordered, levels, side="right").astype(pit.dtype)
    return jnp.mean(jnp.abs(below / ordered.size - levels))
