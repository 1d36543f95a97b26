"""Frechet distance of Gaussians fitted to features."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import check_axes, check_same_shape, floats, two_samples


def _sqrt_psd(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    values, vectors = jnp.linalg.eigh(matrix)
    # A covariance of few points is singular; rounding makes zeros negative.
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T


def frechet_gaussian(
    mean_x: Float[Array | np.ndarray, " dim"],
    cov_x: Float[Array | np.ndarray, "dim dim"],
    mean_y: Float[Array | np.ndarray, " dim"],
    cov_y: Float[Array | np.ndarray, "dim dim"],
) -> Float[Array, ""]:
    """Squared 2-Wasserstein distance of two Gaussians.

    |m_x - m_y|^2 + tr(C_x + C_y - 2 (C_x^(1/2) C_y C_x^(1/2))^(1/2)). The matrix under
    the root is symmetric, unlike C_x C_y, so its root is real and comes from `eigh`,
    for singular covariances too. The Frechet Distance between Multivariate Normal
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
    root = _sqrt_psd(cov_x)
    middle = root @ cov_y @ root
    values = jnp.linalg.eigvalsh(0.5 * (middle + middle.T))
    cross = jnp.sum(jnp.sqrt(jnp.maximum(values, 0.0)))
    squared = jnp.sum((mean_x - mean_y) ** 2)
    return jnp.maximum(squared + jnp.trace(cov_x) + jnp.trace(cov_y) - 2.0 * cross, 0.0)


def frechet_distance(
    x: Float[Array | np.ndarray, "x_num *shape"],
    y: Float[Array | np.ndarray, "y_num *shape"],
) -> Float[Array, ""]:
    """Squared Frechet distance of Gaussians fitted to two sets of features.

    With the features of an Inception network this is the FID; any features do, and the
    figure means something only beside others of the same features and **the same
    numbers of points**: fewer points give a larger distance. GANs Trained by a Two
    Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel, Ramsauer,
    Unterthiner, Nessler, Hochreiter, 2017).

    **Arguments:**

    - `x`, `y`: features, at least two points each, one along the leading axis.

    **Raises:** `ValueError` for too few points, points of different shapes, or NaN.
    """
    x, y = two_samples(x, y, least=2)

    def moments(points):
        mean = jnp.mean(points, axis=0)
        centred = points - mean[None]
        return mean, centred.T @ centred / (len(points) - 1.0)

    return frechet_gaussian(*moments(x), *moments(y))
