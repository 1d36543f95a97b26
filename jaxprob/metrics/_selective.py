"""Selective prediction: the risk when the most uncertain rows are left out."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._inputs import check_axes, check_same_shape, floats


class RiskCoverage(NamedTuple):
    """Mean loss of the most certain rows against the fraction that is kept."""

    coverage: Float[Array, " rows"]
    risk: Float[Array, " rows"]


def risk_coverage(
    loss: Float[Array | np.ndarray, " rows"],
    uncertainty: Float[Array | np.ndarray, " rows"],
) -> RiskCoverage:
    """Risk at coverage k / n: mean loss of the k rows of least uncertainty.

    Rows of equal uncertainty have no order. The curve is its expectation over all their
    orders, so that the result does not depend on the order of the rows. Selective
    Classification for Deep Neural Networks (Geifman, El-Yaniv, 2017).

    **Arguments:**

    - `loss`: loss of each row: 1 for an error and 0 for none, or any other loss.
    - `uncertainty`: uncertainty of each row, such as `entropy` or a predictive
        variance.

    **Raises:** `ValueError` for different lengths or NaN; `TypeError` for integers or
    bools.
    """
    loss, uncertainty = floats(loss=loss, uncertainty=uncertainty)
    check_axes("loss", loss, "rows")
    check_same_shape(loss=loss, uncertainty=uncertainty)
    rows = len(loss)
    order = jnp.argsort(uncertainty)
    loss, uncertainty = loss[order], uncertainty[order]
    # The expected sum of the first k rows of a tie in random order is k times its mean.
    first = jnp.concatenate([jnp.zeros(1, bool), uncertainty[1:] > uncertainty[:-1]])
    group = jnp.cumsum(first)
    total = jax.ops.segment_sum(loss, group, num_segments=rows)
    size = jax.ops.segment_sum(jnp.ones_like(loss), group, num_segments=rows)
    count = jnp.arange(1, rows + 1, dtype=loss.dtype)
    risk = jnp.cumsum((total / jnp.maximum(size, 1.0))[group]) / count
    return RiskCoverage(count / rows, risk)


def aurc(
    loss: Float[Array | np.ndarray, " rows"],
    uncertainty: Float[Array | np.ndarray, " rows"],
) -> Float[Array, ""]:
    """Area under the risk-coverage curve, the mean over k = 1, ..., n.

    Smaller is better. It is the mean loss for an uninformative uncertainty and at least
    `aurc(loss, loss)`.

    **Arguments:** as for `risk_coverage`.
    """
    return jnp.mean(risk_coverage(loss, uncertainty).risk)
