"""Probability integral transform: F(y) is uniform if the predictive F is correct."""

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

    A histogram shaped like a U shows overconfidence, a hump underconfidence and a slope
    bias.

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

    The rank of y among n samples of its distribution is uniform on 0, ..., n, so that
    the result is exactly uniform for any number of samples. Ties are broken at random.

    **Arguments:**

    - `y`: what was observed.
    - `samples`: draws of the predictions, along a leading axis.
    - `key`: key of u.
    """
    y, samples = floats(**near_zero(y=y, samples=samples))
    if samples.shape[1:] != y.shape:
        raise ValueError(
            f"samples has shape {samples.shape} and y {y.shape}: give samples "
            "of the shape of y along a new leading axis"
        )
    below = jnp.sum(samples < y[None], axis=0).astype(y.dtype)
    ties = jnp.sum(samples == y[None], axis=0).astype(y.dtype)
    u = jax.random.uniform(key, y.shape, y.dtype)
    # Among its ties y has any of the ranks below, ..., below + ties.
    return (below + u * (ties + 1.0)) / (samples.shape[0] + 1.0)


def pit_counts(
    cdf: Float[Array | np.ndarray, "*shape"],
    cdf_below: Float[Array | np.ndarray, "*shape"],
    *,
    key: PRNGKey,
) -> Float[Array, "*shape"]:
    """Randomised PIT of whole numbers: F(y - 1) + u (F(y) - F(y - 1)), u uniform.

    F jumps at whole numbers, so that F(y) is not uniform for the true F; this is, for
    any F. Predictive Model Assessment for Count Data (Czado, Gneiting, Held, 2009).

    ```python
    y, p = jnp.array([0, 3, 1]), dist.Poisson(2.0)  # or a predictive of counts
    pit = pit_counts(p.cdf(y), p.cdf(y - 1), key=key)
    ```

    **Arguments:**

    - `cdf`: F(y) of the predictions.
    - `cdf_below`: F(y - 1).
    - `key`: key of u.

    **Raises:** `ValueError` for different shapes, NaN, or F(y - 1) above F(y).
    """
    cdf, cdf_below = floats(cdf=cdf, cdf_below=cdf_below)
    check_same_shape(cdf=cdf, cdf_below=cdf_below)
    if is_concrete(cdf) and is_concrete(cdf_below) and (cdf_below > cdf).any():
        raise ValueError(
            "cdf_below is above cdf: give F(y) first and F(y - 1) second, of one F"
        )
    u = jax.random.uniform(key, cdf.shape, cdf.dtype)
    return cdf_below + u * (cdf - cdf_below)


def quantile_calibration_error(
    pit: Float[Array | np.ndarray, "*shape"], *, num_levels: int = 99
) -> Float[Array, ""]:
    """Mean over levels p of |fraction of y below the predicted p-quantile - p|.

    y is below its p-quantile if F(y) <= p, so that the PIT values suffice.
    In the limit of many levels it is the 1-Wasserstein distance of the PIT values from
    uniform. Accurate Uncertainties for Deep Learning Using Calibrated Regression
    (Kuleshov, Fenner, Ermon, 2018), with absolute in place of squared differences.

    **Arguments:**

    - `pit`: F(y) for each outcome.
    - `num_levels`: levels k / (num_levels + 1), k = 1, ..., num_levels.

    **Raises:** `ValueError` for values outside [0, 1].
    """
    (pit,) = floats(pit=pit)
    if is_concrete(pit) and ((pit < 0.0) | (pit > 1.0)).any():
        raise ValueError("pit has values outside [0, 1]: give F(y), see `pit_gaussian`")
    if num_levels < 1:
        raise ValueError(f"num_levels={num_levels}: give at least 1")
    levels = jnp.arange(1, num_levels + 1, dtype=pit.dtype) / (num_levels + 1.0)
    ordered = jnp.sort(pit.reshape(-1))
    below = jnp.searchsorted(ordered, levels, side="right").astype(pit.dtype)
    return jnp.mean(jnp.abs(below / ordered.size - levels))
