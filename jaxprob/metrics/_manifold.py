"""Fidelity and diversity of samples, apart, by nearest neighbours."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import two_samples


class ManifoldScores(NamedTuple):
    """Precision and density: are samples real? Recall and coverage: is all there?"""

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
    """Overlap of two samples, each blurred to balls up to the k-th neighbour.

    Precision: share of samples within some real point's ball. Recall: the same with
    the roles exchanged. Density: real balls round a sample over k, on average; it may
    exceed 1. Coverage: share of real points whose ball holds a sample. Improved
    Precision and Recall Metric for Assessing Generative Models (Kynkaanniemi, Karras,
    Laine, Lehtinen, Aila, 2019); Reliable Fidelity and Diversity Metrics for Generative
    Models (Naeem, Oh, Uh, Choi, Yoo, 2020). Memory grows with the product of the sizes.

    **Arguments:**

    - `samples`, `real`: points, more than `num_neighbours` of each.
    - `num_neighbours`: k.

    **Raises:** `ValueError` for too few points, points of different shapes, or NaN.
    """
    if num_neighbours < 1:
        raise ValueError(f"num_neighbours={num_neighbours}: at least one is needed")
    samples, real = two_samples(samples, real, least=num_neighbours + 1)
    return _scores(samples, real, num_neighbours)


# Jitted, for a map outside of jit is compiled anew in every call.
@functools.partial(jax.jit, static_argnums=2)
def _scores(samples, real, num_neighbours):
    between = _distances(real, samples)
    # Each point is its own nearest neighbour, at rank 0.
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
