"""Errors and proper scores of classes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._inputs import (
    SUM_TOLERANCE,
    Weights,
    check_axes,
    floats,
    is_concrete,
    labels_and,
    probabilities,
    reduce,
)


def accuracy(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    sample_weight: Weights | None = None,
) -> Float[Array, ""]:
    """Fraction of rows whose most probable class is the label.

    **Arguments:**

    - `labels`: in `0, ..., classes - 1`.
    - `probs`: probabilities of the classes.
    - `sample_weight`: how often each row counts, or which do.

    **Raises:** `ValueError` for different lengths, labels outside the classes, NaN,
    or rows that do not sum to one; `TypeError` for labels that are not integers.
    """
    probs = probabilities("probs", probs)
    labels = labels_and(labels, "probs", probs)
    correct = (jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype)
    return reduce(correct, sample_weight=sample_weight)


def categorical_nll(
    labels: Int[Array | np.ndarray, " rows"],
    log_probs: Float[Array | np.ndarray, "rows classes"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Float[Array, " rows"]:
    """Negative log-probability of the labels, in nats.

    It takes logarithms, `jax.nn.log_softmax(logits)` or `log_prob` of a mixture,
    because probabilities near zero underflow and a clipped logarithm is not a proper
    score. A log-probability of minus infinity is allowed; at a label the result is
    infinite.

    **Arguments:**

    - `labels`: in `0, ..., classes - 1`.
    - `log_probs`: logarithms of the classes' probabilities.
    - `per_example`: return one value per row.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for different lengths, labels outside the classes, NaN,
    or rows whose exponentials do not sum to one.
    """
    (log_probs,) = floats(log_probs=log_probs, allow_infinite=True)
    check_axes("log_probs", log_probs, "rows classes")
    labels = labels_and(labels, "log_probs", log_probs)
    if is_concrete(log_probs):
        total = np.asarray(jax.nn.logsumexp(log_probs, axis=-1))
        bad = ~(np.abs(total) <= SUM_TOLERANCE)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise ValueError(
                f"log_probs row {row}: the probabilities sum to {np.exp(total[row])}, "
                "not to one. For logits pass jax.nn.log_softmax(logits), for "
                "probabilities pass jnp.log(probs)."
            )
    values = -jnp.take_along_axis(log_probs, labels[:, None], axis=-1)[:, 0]
    return reduce(values, per_example, sample_weight)


def brier(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Float[Array, " rows"]:
    """Brier score sum_k (p_k - 1[label = k])^2, in [0, 2], a bounded proper score.

    The sum runs over all classes, as in the reference; for two classes the score of the
    positive class alone, which is also in use, is half of it. Verification of forecasts
    expressed in terms of probability (Brier, 1950).

    **Arguments:** as for `accuracy`; `per_example` returns one value per row.
    """
    probs = probabilities("probs", probs)
    labels = labels_and(labels, "probs", probs)
    target = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    return reduce(jnp.sum((probs - target) ** 2, axis=-1), per_example, sample_weight)


def ranked_probability_score(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Float[Array, " rows"]:
    """Ranked probability score sum_k (F_k - 1[label <= k])^2 of ordered classes.

    F_k is the probability of the classes up to k. A prediction that is off by two
    classes costs more than one that is off by one, which `brier` does not distinguish;
    for two classes the score is half of `brier`. It is the CRPS of the class number. A
    Scoring System for Probability Forecasts of Ranked Categories (Epstein, 1969).

    **Arguments:** as for `brier`; the classes are in their order.
    """
    probs = probabilities("probs", probs)
    labels = labels_and(labels, "probs", probs)
    classes = jnp.arange(probs.shape[-1], dtype=labels.dtype)
    reached = (labels[:, None] <= classes[None]).astype(probs.dtype)
    gaps = (jnp.cumsum(probs, axis=-1) - reached) ** 2
    return reduce(jnp.sum(gaps[:, :-1], axis=-1), per_example, sample_weight)
