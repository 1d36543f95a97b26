"""Fidelity and diversity of samples by nearest neighbours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import two_samples


class ManifoldScores(NamedTuple):
    """Fidelity (precision, density) and diversity (recall, coverage) of samples."""

    precision: Float[Array, ""]
    recall: Float[Array, ""]
    density: Float[Array, ""]
    coverage: Float[Array, ""]


def _distances(x, y):
    return jax.lax.map(
        lambda a: jnp.linalg.norm(y - a[None], axis=-1), x, batch_size=64
    )


def precision_recall_density_coverage(
    samples: Float[Array | np.ndarray, "samples_num *shape"],
    real: Float[Array | np.ndarray, "real_num *shape"],
    *,
    num_neighbours: int = 5,
) -> ManifoldScores:
    """Overlap of two samples, each covered by balls up to the k-th neighbour.

    Precision is the fraction of samples within the ball of some real point, recall the
    same with the roles exchanged. Density is the mean number of real balls that contain
    a sample, divided by k; it may exceed 1. Coverage is the fraction of real points
    whose ball contains a sample. Improved
    Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi, Karras,
    Laine, Lehtinen, Aila, 2019); Reliable Fidelity and Diversity Metrics for Generative
    Models (Naeem, Oh, Uh, Choi, Yoo, 2020). Memory grows with the product of the sizes.

    **Arguments:**

    - `samples`, `real`: points, more than `num_neighbours` of each.
    - `num_neighbours`: k.

    **Raises:** `ValueError` for too few points, points of different shapes, or NaN.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours={num_neighbours}: give at least 1")
    samples, real = two_samples(samples, real, least=num_neighbours + 1)
    return _scores(samples, real, num_neighbours)


# Jitted, because a map outside of jit is compiled again in every call.
@functools.partial(jax.jit, static_argnums=2)
def _scores(samples, real, num_neighbours):
    between = _distances(real, samples)
    # Rank 0 is the point itself.
    real_radius = jnp.sort(_distances(real, real), axis=1)[:, num_neighbours]
    radius = jnp.sort(_distances(samples, samples), axis=1)[:, num_neighbours]
    in_real = between <= real_radius[:, None]
    in_samples = between <= radius[None]
    dtype = samples.dtype
    return ManifoldScores(
        precision=jnp.mean(jnp.any(in_real, axis=0), dtype=dtype),
        recall=jnp.mean(jnp.any(in_samples, axis=1), dtype=dtype),
        density=jnp.mean(jnp.sum(in_real, axis=0), dtype=dtype) / num_neighbours,
        coverage=jnp.mean(jnp.any(in_real, axis=1), dtype=dtype),
    )
