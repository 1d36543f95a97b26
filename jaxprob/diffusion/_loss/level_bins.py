"""The loss of a denoiser in parts, by the noise level, as metrics of training."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._training.batch import masked_mean
from ..._types import Metrics


def level_bins(
    errors: Float[Array, " batch"],
    u: Float[Array, " batch"],
    mask: Bool[Array, " batch"],
    num_bins: int,
) -> Metrics:
    r"""Return the loss of each of equally probable bins of noise levels.

    Bin i has the rows whose time is between the quantiles i/K and (i + 1)/K of the
    distribution of times, so that a higher bin has more noise. Its metric is

    $$\frac{K}{B} \sum_b e_b\, 1[u_b \in \text{bin } i],$$

    which is unbiased for the mean error in the bin, also if a batch has no row in it,
    and whose mean over the bins is the loss. A mean over the rows of the bin would not
    average over batches.

    **Arguments:**

    - `errors`, `u`: weighted error of each row, and the quantile of its time.
    - `mask`: which rows count.
    - `num_bins`: K.
    """
    place = jnp.minimum((u * num_bins).astype(jnp.int32), num_bins - 1)
    metrics = {}
    for i in range(num_bins):
        inside = jnp.where(place == i, errors, jnp.zeros((), errors.dtype))
        metrics[f"loss_bin_{i}"] = num_bins * masked_mean(inside, mask)
    return metrics
