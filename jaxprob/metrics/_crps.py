"""Continuous ranked probability score: a proper score in the unit of y.

CRPS(F, y) = int (F(u) - 1[y <= u])^2 du = E|X - y| - E|X - X'| / 2, X and X' ~ F.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from ._inputs import Weights, check_positive, check_same_shape, floats, mixture, reduce
from ._near_zero import near_zero


def crps_gaussian(
    y: Float[Array | np.ndarray, "*shape"],
    mean: Float[Array | np.ndarray, "*shape"],
    std: Float[Array | np.ndarray, "*shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """CRPS of a Gaussian: s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)).

    Here z = (y - m) / s. Calibrated Probabilistic Forecasting Using Ensemble Model
    Output Statistics and Minimum CRPS Estimation (Gneiting, Raftery, Westveld, Goldman,
    2005), eq. 5.

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
    z = (y - mean) / std
    values = std * (z * (2.0 * norm.cdf(z) - 1.0) + 2.0 * norm.pdf(z) - np.pi**-0.5)
    return reduce(values, per_example, sample_weight)


def _expected_abs(mean, std):
    """E|X| for X ~ N(mean, std^2)."""
    z = mean / std
    return mean * (2.0 * norm.cdf(z) - 1.0) + 2.0 * std * norm.pdf(z)


def crps_gaussian_mixture(
    y: Float[Array | np.ndarray, "*shape"],
    means: Float[Array | np.ndarray, "components *shape"],
    stds: Float[Array | np.ndarray, "components *shape"],
    *,
    weights: Float[Array | np.ndarray, " components"] | None = None,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """CRPS of a mixture of Gaussians, exact.

    sum_k w_k A(y - m_k, s_k) - (1/2) sum_kl w_k w_l A(m_k - m_l, sqrt(s_k^2 + s_l^2)),
    where A(m, s) = E|X| of X ~ N(m, s^2). The Fast Calculation of Closed-Form
    Expressions for the CRPS of Gaussian Mixtures (Grimit, Gneiting, Berrocal, Johnson,
    2006). The cost is quadratic in the number of components, the memory linear. For
    thousands of components use samples and `crps_samples`.

    **Arguments:** as for `gaussian_mixture_nll`.
    """
    return reduce(
        _mixture(*mixture(y, means, stds, weights)), per_example, sample_weight
    )


# Jitted, because a scan outside of jit is compiled again in every call.
@jax.jit
def _mixture(y, means, stds, weights):
    def add(total, component):
        weight, mean, std = component
        spread = jax.vmap(lambda m, s: _expected_abs(mean - m, jnp.hypot(std, s)))
        inner = jnp.tensordot(weights, spread(means, stds), axes=1)
        return total + weight * (_expected_abs(y - mean, std) - 0.5 * inner), None

    return jax.lax.scan(add, jnp.zeros_like(y), (weights, means, stds))[0]


def crps_samples(
    y: Float[Array | np.ndarray, "*shape"],
    samples: Float[Array | np.ndarray, "num *shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, "*shape"] | Float[Array, ""]:
    """Unbiased ("fair") estimate of the CRPS from n samples, in n log n operations.

    mean_i |x_i - y| - sum_ij |x_i - x_j| / (2 n (n - 1)). The CRPS of the empirical
    distribution divides by n^2 and is larger for few samples. Fair scores for ensemble
    forecasts (Ferro, 2014).

    **Arguments:**

    - `y`: what was observed.
    - `samples`: at least two draws of the prediction, along a leading axis.
    - `per_example`: return one value per element.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for shapes that do not agree, one sample, or NaN.
    """
    y, samples = floats(**near_zero(y=y, samples=samples))
    num = samples.shape[0] if samples.ndim else 0
    if samples.shape[1:] != y.shape or num < 2:
        raise ValueError(
            f"samples has shape {samples.shape} and y {y.shape}: give two or more "
            "samples of the shape of y along a new leading axis"
        )
    # Sort differences to y: the sum over ranks cancels, and a large common offset
    # would lose digits.
    difference = samples - y[None]
    ordered = jnp.sort(difference, axis=0)
    rank = 2.0 * jnp.arange(1, num + 1, dtype=y.dtype) - (num + 1)
    spread = jnp.tensordot(rank / (num * (num - 1)), ordered, axes=1)
    return reduce(
        jnp.mean(jnp.abs(difference), axis=0) - spread, per_example, sample_weight
    )
