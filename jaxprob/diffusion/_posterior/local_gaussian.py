"""A measurement as a linear one with Gaussian noise, near a point."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .noise import weights_and_residuals
from .observation import Observation


class LocalGaussian(eqx.Module):
    r"""$W A(x + v) \approx W A(x) + W A' v$ with noise of unit variance.

    W are the weights of the entries, $1/\sigma$ for Gaussian noise and the root of the
    Fisher information for any other. It is exact for a linear operator and Gaussian
    noise. Entries that are missing have rows of zeros.

    **Fields:**

    - `residual`: $W (y - A(x))$ as a vector; for noise that is not Gaussian the
        gradient of the likelihood over W.
    - `num_measured`: number of entries that are not missing.
    - `push`: $v \mapsto W A' v$, from the shape of x to a vector.
    - `pull`: its adjoint.
    """

    residual: Float[Array, " size"]
    num_measured: Float[Array, ""]
    push: Callable
    pull: Callable


def local_gaussian(observation: Observation, x: Float[Array, "..."]) -> LocalGaussian:
    """Return the measurement near a point.

    **Arguments:**

    - `observation`: whose noise is not 0.
    - `x`: where operator and likelihood are expanded, as in `observation.predict`.
    """
    prediction, derivative = jax.linearize(observation.predict, x)
    rows = zip(*observation.rows(prediction), strict=True)
    pairs = [weights_and_residuals(*row) for row in rows]
    weights = flat([weight for weight, _ in pairs], x.dtype)
    residual = flat([residual for _, residual in pairs], x.dtype)
    return _weighted(observation, residual, weights, derivative, x)


def exact_measurement(
    observation: Observation, x: Float[Array, "..."]
) -> LocalGaussian:
    """Return the measurement near a point as if there were no noise: W is 1 or 0.

    **Arguments:** as in `local_gaussian`.
    """
    prediction, derivative = jax.linearize(observation.predict, x)
    residual = flat(observation.y, x.dtype) - flat(prediction, x.dtype)
    weights = flat(jax.tree.map(jnp.logical_not, observation.missing), x.dtype)
    return _weighted(observation, weights * residual, weights, derivative, x)


def flat(tree: PyTree[Array], dtype) -> Float[Array, " size"]:
    """Return all leaves of a tree as one vector."""
    leaves = [leaf.ravel().astype(dtype) for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate(leaves)


def _weighted(observation, residual, weights, derivative, x):
    there = jax.tree.map(jnp.logical_not, observation.missing)
    num_measured = jnp.sum(flat(there, x.dtype))

    def push(v):
        return weights * flat(derivative(v), x.dtype)

    transposed = jax.linear_transpose(push, x)
    return LocalGaussian(residual, num_measured, push, lambda u: transposed(u)[0])
