"""Telling foreign inputs by their uncertainty: scores, and how well they separate."""

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from jaxtyping import Array, Float

from ._inputs import check_axes, floats, probabilities


def entropy(
    probs: Float[Array | np.ndarray, "rows classes"],
) -> Float[Array, " rows"]:
    """Entropy -sum_k p_k log p_k of each row, in nats: total uncertainty.

    **Arguments:**

    - `probs`: probabilities of the classes, averaged over posterior samples.
    """
    return jnp.sum(entr(probabilities("probs", probs)), axis=-1)


def max_probability_uncertainty(
    probs: Float[Array | np.ndarray, "rows classes"],
) -> Float[Array, " rows"]:
    """1 - max_k p_k of each row: the stated probability of an error.

    A Baseline for Detecting Misclassified and Out-of-Distribution Examples in Neural
    Networks (Hendrycks, Gimpel, 2017).

    **Arguments:** as for `entropy`.
    """
    return 1.0 - jnp.max(probabilities("probs", probs), axis=-1)


def mutual_information(
    probs: Float[Array | np.ndarray, "samples rows classes"],
) -> Float[Array, " rows"]:
    """Entropy of the mean minus mean of the entropies, in nats: epistemic uncertainty.

    It is the information that the label would give about the weights; zero where all
    samples agree, at most log(samples) and at most log(classes). Bayesian Active
    Learning for Classification and Preference Learning (Houlsby, Huszar, Ghahramani,
    Lengyel, 2011).

    **Arguments:**

    - `probs`: probabilities of the classes under each posterior sample.
    """
    probs = probabilities("probs", probs, "samples rows classes")
    total = jnp.sum(entr(jnp.mean(probs, axis=0)), axis=-1)
    aleatoric = jnp.mean(jnp.sum(entr(probs), axis=-1), axis=0)
    # Not negative, by Jensen; the difference of two roundings may be.
    return jnp.maximum(total - aleatoric, 0.0)


def _scores(negative, positive):
    negative, positive = floats(
        negative=negative, positive=positive, allow_infinite=True
    )
    check_axes("negative", negative, "rows")
    check_axes("positive", positive, "rows")
    return negative, positive


def auroc(
    negative: Float[Array | np.ndarray, " negatives"],
    positive: Float[Array | np.ndarray, " positives"],
) -> Float[Array, ""]:
    """Probability that a positive scores above a negative; a tie counts half.

    This is the area under the ROC curve: 1/2 is chance, 1 perfect.

    ```python
    auroc(entropy(probs_known), entropy(probs_foreign))
    ```

    **Arguments:**

    - `negative`: scores of what should score low, such as inputs like the training set.
    - `positive`: scores of what should score high, such as foreign inputs.

    **Raises:** `ValueError` for an empty set or NaN; `TypeError` for integers.
    """
    negative, positive = _scores(negative, positive)
    ordered = jnp.sort(negative)
    below = jnp.searchsorted(ordered, positive, side="left").astype(negative.dtype)
    not_above = jnp.searchsorted(ordered, positive, side="right").astype(negative.dtype)
    return jnp.mean((below + not_above) / (2.0 * negative.size))


def fpr_at_tpr(
    negative: Float[Array | np.ndarray, " negatives"],
    positive: Float[Array | np.ndarray, " positives"],
    *,
    tpr: float = 0.95,
) -> Float[Array, ""]:
    """Share of negatives called positive where at least `tpr` of positives are: FPR95.

    The threshold is the largest at which that many positives score at or above it.
    Positive is what `auroc` calls so; papers that call the known inputs positive report
    `fpr_at_tpr(-foreign, -known)`.

    **Arguments:**

    - `negative`, `positive`: as for `auroc`.
    - `tpr`: true positive rate, in (0, 1].
    """
    if not 0.0 < tpr <= 1.0:
        raise ValueError(f"tpr={tpr}: it is a rate above 0 and up to 1")
    negative, positive = _scores(negative, positive)
    # 0.95 * 20 must be 19, whatever rounding makes of it.
    needed = max(1, math.ceil(tpr * positive.size - 1e-9))
    threshold = jnp.sort(positive)[positive.size - needed]
    return jnp.mean(negative >= threshold, dtype=negative.dtype)
