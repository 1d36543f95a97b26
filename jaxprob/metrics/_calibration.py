"""Reliability of the confidence in the most probable class."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._inputs import labels_and, probabilities


class ReliabilityCurve(NamedTuple):
    """Per bin: mean confidence, share of correct rows, number of rows.

    Empty bins hold zeros and have count 0.
    """

    confidence: Float[Array, " bins"]
    accuracy: Float[Array, " bins"]
    count: Int[Array, " bins"]

    def error(self) -> Float[Array, ""]:
        """Expected calibration error: mean over rows of |accuracy - confidence|."""
        gap = jnp.abs(self.accuracy - self.confidence)
        weight = self.count.astype(gap.dtype) / jnp.sum(self.count).astype(gap.dtype)
        return jnp.sum(weight * gap)


def reliability_curve(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    num_bins: int = 15,
    adaptive: bool = False,
) -> ReliabilityCurve:
    """Confidence against accuracy, in bins of the confidence max_k p_k.

    On Calibration of Modern Neural Networks (Guo, Pleiss, Sun, Weinberger, 2017).

    **Arguments:**

    - `labels`: in `0, ..., classes - 1`.
    - `probs`: probabilities of the classes.
    - `num_bins`: intervals (k / bins, (k + 1) / bins] of equal width, or,
    - `adaptive`: bins of equal numbers of rows, to within one.

    **Raises:** `ValueError` for different lengths, labels outside the classes, NaN,
    rows that do not sum to one, or no bin.
    """
    probs = probabilities("probs", probs)
    labels = labels_and(labels, "probs", probs)
    if num_bins < 1:
        raise ValueError(f"num_bins={num_bins}: give at least 1")
    confidence = jnp.max(probs, axis=-1)
    correct = (jnp.argmax(probs, axis=-1) == labels).astype(probs.dtype)
    if adaptive:
        rows = len(labels)
        order = jnp.argsort(confidence)
        confidence, correct = confidence[order], correct[order]
        bins = jnp.asarray(np.arange(rows) * num_bins // rows)
    else:
        # Right-closed; rounding may put a confidence of one slightly above one.
        edges = jnp.linspace(0.0, 1.0, num_bins + 1, dtype=probs.dtype)
        bins = jnp.searchsorted(edges, confidence, side="left") - 1
        bins = jnp.clip(bins, 0, num_bins - 1)

    def per_bin(values):
        return jax.ops.segment_sum(values, bins, num_segments=num_bins)

    count = per_bin(jnp.ones_like(bins))
    least_one = jnp.maximum(count, 1).astype(probs.dtype)
    return ReliabilityCurve(
        per_bin(confidence) / least_one, per_bin(correct) / least_one, count
    )


def ece(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    num_bins: int = 15,
) -> Float[Array, ""]:
    """Expected calibration error, in bins of equal width.

    It is biased upwards on small sets, on which a perfect model does not score zero. It
    is not a proper score: predicting the base rate for every row scores zero. Report it
    beside `brier` or `categorical_nll`.

    **Arguments:** as for `reliability_curve`.
    """
    return reliability_curve(labels, probs, num_bins=num_bins).error()


def adaptive_ece(
    labels: Int[Array | np.ndarray, " rows"],
    probs: Float[Array | np.ndarray, "rows classes"],
    *,
    num_bins: int = 15,
) -> Float[Array, ""]:
    """Expected calibration error, in bins of equal numbers of rows.

    Prefer it if most confidences are near one, so that bins of equal width are nearly
    empty. Measuring Calibration in Deep Learning (Nixon, Dusenberry, Jerfel,
    Nguyen, Liu, Zhang, Tran, 2019).

    **Arguments:** as for `reliability_curve`.
    """
    return reliability_curve(labels, probs, num_bins=num_bins, adaptive=True).error()
