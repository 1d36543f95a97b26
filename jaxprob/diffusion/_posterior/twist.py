r"""The likelihood of a noisy example, $p(y \mid x_0 + s z = x)$, by two moments."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Scalar
from .conditioned import Prior
from .local_gaussian import local_gaussian
from .observation import Observation


def log_twist(
    observation: Observation,
    x_0: Float[Array, "*shape"],
    covariance: Prior,
    max_dense: int,
) -> Scalar:
    r"""Return $\log E\,p(y \mid x_0)$ for Gaussian $x_0$ of a mean and a covariance.

    With the whitened residual r and $K = W A V A^T W$ it is
    $\log p(y \mid D) + \tfrac12 r^T K (I + K)^{-1} r - \tfrac12 \log |I + K|$, exactly
    for a linear operator and Gaussian noise. For more entries of y than `max_dense` K
    is replaced by its row sums.

    **Arguments:**

    - `observation`: the measurement.
    - `x_0`: the mean D.
    - `covariance`: the product with V.
    - `max_dense`: as in `MMPS`.
    """
    local = local_gaussian(observation, x_0)

    def product(u):
        return local.push(covariance(local.pull(u)))

    r = local.residual
    if r.size <= max_dense:
        matrix = jax.vmap(product)(jnp.eye(r.size, dtype=r.dtype))
        values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2.0)
        square = (vectors.T @ r) ** 2
    else:
        values, square = product(jnp.ones_like(r)), r**2
    values = jnp.maximum(values, 0.0)
    gain = jnp.sum(values / (1.0 + values) * square - jnp.log1p(values))
    return observation.log_likelihood(x_0) + 0.5 * gain
