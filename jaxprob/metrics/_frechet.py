"""Frechet distance of Gaussians fitted to features."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import check_axes, check_same_shape, floats, two_samples


def _distance(
    mean_x: Float[Array, " dim"],
    factor_x: Float[Array, "x_rank dim"],
    mean_y: Float[Array, " dim"],
    factor_y: Float[Array, "y_rank dim"],
) -> Float[Array, ""]:
    """From factors C = F' F: tr (C_x^(1/2) C_y C_x^(1/2))^(1/2) = |F_x F_y'|_*.

    The nuclear norm is a sum of singular values and takes no root of numbers near zero:
    a rounding error of 1e-7 stays 1e-7, whereas the root of a product of covariances
    makes it 3e-4 in each direction of zero variance.
    """
    cross = jnp.sum(jnp.linalg.svd(factor_x @ factor_y.T, compute_uv=False))
    traces = jnp.sum(factor_x**2) + jnp.sum(factor_y**2)
    return jnp.maximum(jnp.sum((mean_x - mean_y) ** 2) + traces - 2.0 * cross, 0.0)


def frechet_gaussian(
    mean_x: Float[Array | np.ndarray, " dim"],
    cov_x: Float[Array | np.ndarray, "dim dim"],
    mean_y: Float[Array | np.ndarray, " dim"],
    cov_y: Float[Array | np.ndarray, "dim dim"],
) -> Float[Array, ""]:
    """Squared 2-Wasserstein distance of two Gaussians.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2)). Covariances may
    be singular. The Frechet Distance between Multivariate Normal
    Distributions (Dowson, Landau, 1982).

    **Arguments:**

    - `mean_x`, `mean_y`: means.
    - `cov_x`, `cov_y`: covariances, symmetric and positive semi-definite.
    """
    mean_x, cov_x, mean_y, cov_y = floats(
        mean_x=mean_x, cov_x=cov_x, mean_y=mean_y, cov_y=cov_y
    )
    check_axes("mean_x", mean_x, "dim")
    check_axes("cov_x", cov_x, "dim dim")
    check_same_shape(mean_x=mean_x, mean_y=mean_y)
    check_same_shape(cov_x=cov_x, cov_y=cov_y)

    def factor(cov):
        values, vectors = jnp.linalg.eigh(cov)
        # A smaller eigenvalue is a rounded zero, of either sign.
        least = len(cov) * jnp.finfo(cov.dtype).eps * values[-1]
        values = jnp.where(values > least, values, 0.0)
        return (vectors * jnp.sqrt(values)[None]).T

    return _distance(mean_x, factor(cov_x), mean_y, factor(cov_y))


def frechet_distance(
    x: Float[Array | np.ndarray, "x_num *shape"],
    y: Float[Array | np.ndarray, "y_num *shape"],
) -> Float[Array, ""]:
    """Squared Frechet distance of Gaussians fitted to two sets of features.

    With the features of an Inception network this is the FID. Any features can be used.
    Compare only distances of the same features and **the same numbers of points**:
    fewer points give a larger distance. GANs Trained by a Two Time-Scale Update Rule
    Converge to a Local Nash Equilibrium (Heusel, Ramsauer, Unterthiner, Nessler,
    Hochreiter, 2017).

    **Arguments:**

    - `x`, `y`: features, at least two points each, one along the leading axis.

    **Raises:** `ValueError` for too few points, points of different shapes, or NaN.
    """
    x, y = two_samples(x, y, least=2)

    def moments(points):
        mean = jnp.mean(points, axis=0)
        centred = (points - mean[None]) / np.sqrt(len(points) - 1).item()
        # The R of QR is a factor of the covariance, which is never formed.
        return mean, jnp.linalg.qr(centred, mode="r")

    return _distance(*moments(x), *moments(y))
