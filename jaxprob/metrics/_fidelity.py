"""Distances between a predictive distribution and a reference, such as long HMC."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import check_same_shape, probabilities, reduce


def agreement(
    probs: Float[Array | np.ndarray, "rows classes"],
    reference: Float[Array | np.ndarray, "rows classes"],
) -> Float[Array, ""]:
    """Fraction of rows on whose most probable class both agree.

    What Are Bayesian Neural Network Posteriors Really Like? (Izmailov, Vikram, Hoffman,
    Wilson, 2021).

    **Arguments:**

    - `probs`, `reference`: probabilities of the classes under both.
    """
    probs = probabilities("probs", probs)
    reference = probabilities("reference", reference)
    check_same_shape(probs=probs, reference=reference)
    same = jnp.argmax(probs, axis=-1) == jnp.argmax(reference, axis=-1)
    return jnp.mean(same, dtype=probs.dtype)


def total_variation(
    probs: Float[Array | np.ndarray, "rows classes"],
    reference: Float[Array | np.ndarray, "rows classes"],
    *,
    per_example: bool = False,
) -> Float[Array, ""] | Float[Array, " rows"]:
    """Mean over rows of (1/2) sum_k |p_k - q_k|, in [0, 1].

    **Arguments:** as for `agreement`; `per_example` returns one value per row.
    """
    probs = probabilities("probs", probs)
    reference = probabilities("reference", reference)
    check_same_shape(probs=probs, reference=reference)
    dtype = np.result_type(probs.dtype, reference.dtype)
    gap = jnp.abs(probs.astype(dtype) - reference.astype(dtype))
    return reduce(0.5 * jnp.sum(gap, axis=-1), per_example)
