"""Maximum mean discrepancy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import check_positive, floats, two_samples


def _squared_distances(a: Float[Array, " dim"], x: Float[Array, "num dim"]):
    # Differences, not |a|^2 + |x|^2 - 2 a x: near points would cancel to noise.
    return jnp.sum((x - a[None]) ** 2, axis=-1)


def median_bandwidth(
    x: Float[Array | np.ndarray, "x_num *shape"],
    y: Float[Array | np.ndarray, "y_num *shape"],
    *,
    max_points: int = 1000,
) -> Float[Array, ""]:
    """Median distance between two different points of the pooled samples.

    The usual choice for `mmd2`. Compute it once, from the real data, and use it for
    everything that is compared.

    **Arguments:**

    - `x`, `y`: points, one along the leading axis.
    - `max_points`: number of points of each sample that are used.
    """
    x, y = two_samples(x, y)
    return _median(jnp.concatenate([x[:max_points], y[:max_points]]))


# Jitted, because a map outside of jit is compiled again in every call.
@jax.jit
def _median(points):
    rows, columns = np.triu_indices(len(points), k=1)
    squared = jax.lax.map(lambda a: _squared_distances(a, points), points)
    return jnp.median(jnp.sqrt(squared)[rows, columns])


def mmd2(
    x: Float[Array | np.ndarray, "x_num *shape"],
    y: Float[Array | np.ndarray, "y_num *shape"],
    *,
    bandwidth: Float[Array | np.ndarray, ""] | float,
    batch_size: int = 256,
) -> Float[Array, ""]:
    """Unbiased squared MMD with the kernel exp(-|a - b|^2 / (2 bandwidth^2)).

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_ij k(x_i, y_j). Its
    expectation is zero for samples of one distribution, so it may be negative. A Kernel
    Two-Sample Test (Gretton, Borgwardt, Rasch, Schoelkopf, Smola, 2012), eq. 3.

    **Arguments:**

    - `x`, `y`: at least two points each, one along the leading axis.
    - `bandwidth`: bandwidth of the kernel; see `median_bandwidth`.
    - `batch_size`: rows of the kernel matrix in memory at a time.

    **Raises:** `ValueError` for too few points, points of different shapes, NaN, or a
    bandwidth not above zero.
    """
    x, y = two_samples(x, y, least=2)
    (scale,) = floats(bandwidth=bandwidth)
    check_positive("bandwidth", scale)
    return _u_statistic(x, y, scale.astype(x.dtype), batch_size)


@functools.partial(jax.jit, static_argnums=3)
def _u_statistic(x, y, scale, batch_size):
    def mean_kernel(a, b):
        def row(point):
            squared = _squared_distances(point, b)
            return jnp.mean(jnp.exp(-0.5 * squared / scale**2))

        return jnp.mean(jax.lax.map(row, a, batch_size=batch_size))

    def mean_off_diagonal(a):
        # The diagonal of ones is taken out of the mean.
        num = len(a)
        return (num * mean_kernel(a, a) - 1.0) / (num - 1.0)

    return mean_off_diagonal(x) + mean_off_diagonal(y) - 2.0 * mean_kernel(x, y)
