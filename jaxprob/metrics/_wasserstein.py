"""Wasserstein distances: exact in one dimension, sliced in more."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._types import PRNGKey
from ._inputs import check_axes, floats, two_samples


def _coupling(n: int, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the monotone coupling of n and m equal masses: pairs and their masses.

    It depends on the sizes alone and is computed in integers (in units of mass
    1 / (n m)) before tracing, without rounding.
    """
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    mass = np.diff(ends, prepend=0)
    return (ends - 1) // m, (ends - 1) // n, mass / (n * m)


def _power(x, y, p):
    i, j, mass = _coupling(len(x), len(y))
    gap = jnp.abs(jnp.sort(x)[i] - jnp.sort(y)[j])
    return jnp.sum(jnp.asarray(mass, gap.dtype) * gap**p)


def wasserstein_1d(
    x: Float[Array | np.ndarray, " x_num"],
    y: Float[Array | np.ndarray, " y_num"],
    *,
    p: float = 1.0,
) -> Float[Array, ""]:
    """Exact p-Wasserstein distance of two samples of real numbers, of any sizes.

    (int_0^1 |F^-1(u) - G^-1(u)|^p du)^(1/p).

    **Arguments:**

    - `x`, `y`: the samples.
    - `p`: order, at least 1.

    **Raises:** `ValueError` for empty samples, NaN, or p below 1.
    """
    if p < 1.0:
        raise ValueError(f"p={p}: give an order of at least 1")
    x, y = floats(x=x, y=y)
    check_axes("x", x, "num")
    check_axes("y", y, "num")
    return _power(x, y, p) ** (1.0 / p)


def sliced_wasserstein(
    x: Float[Array | np.ndarray, "x_num *shape"],
    y: Float[Array | np.ndarray, "y_num *shape"],
    *,
    key: PRNGKey,
    num_projections: int = 500,
    p: float = 2.0,
) -> Float[Array, ""]:
    """Sliced p-Wasserstein distance: (E_u W_p(u x, u y)^p)^(1/p), u uniform directions.

    Sliced and Radon Wasserstein Barycenters of Measures (Bonneel, Rabin, Peyre,
    Pfister, 2015). Two samples of one distribution do not score zero: report the
    distance of two real samples of the same sizes beside it.

    ```python
    sliced_wasserstein(samples, real, key=key), sliced_wasserstein(more, real, key=key)
    ```

    **Arguments:**

    - `x`, `y`: points, one along the leading axis; images are flattened.
    - `key`: key of the directions; use one key for everything that is compared.
    - `num_projections`: number of directions.
    - `p`: order, at least 1.

    **Raises:** `ValueError` for empty samples, points of different shapes, or NaN.
    """
    x, y = two_samples(x, y)
    if p < 1.0 or num_projections < 1:
        raise ValueError(
            f"p={p}, num_projections={num_projections}: give at least 1 for both"
        )
    return _sliced(x, y, key, num_projections, p)


# Jitted, because a map outside of jit is compiled again in every call.
@functools.partial(jax.jit, static_argnums=(3, 4))
def _sliced(x, y, key, num_projections, p):
    normal = jax.random.normal(key, (num_projections, x.shape[-1]), x.dtype)
    directions = normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)
    # One direction at a time: memory for all would be projections x points.
    powers = jax.lax.map(lambda u: _power(x @ u, y @ u, p), directions)
    return jnp.mean(powers) ** (1.0 / p)
