"""Split conformal prediction: intervals with guaranteed coverage of real outcomes."""

import math

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..metrics._inputs import check_axes, check_positive, check_same_shape, floats
from ..metrics._near_zero import near_zero


def _rank(count: int, level: float) -> int:
    """Return the rank of the order statistic among n scores, ceil((n + 1) level)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: give a probability between 0 and 1")
    # Rounding may put (n + 1) level slightly above the integer that it is.
    return math.ceil((count + 1) * level - 1e-9)


def conformal_quantile(
    scores: Float[Array | np.ndarray, " rows"], level: float
) -> Float[Array, ""]:
    r"""Return the $\lceil (n + 1) \, \text{level} \rceil$-th smallest score.

    A new score, exchangeable with these, is at most as large with probability at least
    `level`, and at most `level` + 1 / (n + 1) if there are no ties.

    **Arguments:**

    - `scores`: the nonconformity score of each calibration row.
    - `level`: in (0, 1).

    **Returns:** the score, or infinity if there are too few rows for a guarantee,
    n < level / (1 - level).

    Reference: *Algorithmic learning in a random world*, Vovk, Gammerman and Shafer,
    2005; *Distribution-free predictive inference for regression*, Lei, G'Sell,
    Rinaldo, Tibshirani and Wasserman, 2018, https://arxiv.org/abs/1604.04173.
    """
    (scores,) = floats(scores=scores)
    check_axes("scores", scores, "rows")
    rank = _rank(len(scores), level)
    if rank > len(scores):
        return jnp.asarray(jnp.inf, scores.dtype)
    return jnp.sort(scores)[rank - 1]


def coverage_distribution(num_rows: int, level: float) -> dist.Beta:
    r"""Return the distribution of the coverage that one calibration set gives.

    It is Beta(k, n + 1 - k) with $k = \lceil (n + 1) \, \text{level} \rceil$ and mean
    k / (n + 1). It shows how many rows are needed: with 1,000 rows at level .9 the
    coverage lies within .9 +- .019 with probability .95.

    **Arguments:**

    - `num_rows`: number of rows n of the calibration set.
    - `level`: guaranteed coverage.

    **Raises:** `ValueError` if the intervals are infinite and cover everything.

    Reference: *Conditional validity of inductive conformal predictors*, Vovk, 2012,
    https://arxiv.org/abs/1209.2673.
    """
    rank = _rank(num_rows, level)
    if rank > num_rows:
        least = math.ceil(level / (1 - level) - 1e-9)
        raise ValueError(
            f"num_rows={num_rows}: with so few rows the interval at level {level} is "
            f"infinite. Give at least {least} rows"
        )
    return dist.Beta(float(rank), float(num_rows + 1 - rank))


class SplitConformal(eqx.Module):
    r"""The interval $\mu(x) \pm q \, \sigma(x)$, q the conformal quantile of
    $|y - \mu(x)| / \sigma(x)$.

    ```python
    conformal = SplitConformal.fit(y_val, mean_val, std_val, level=0.9)
    lower, upper = conformal(mean_test, std_test)
    ```

    Reference: *Distribution-free predictive inference for regression*, Lei, G'Sell,
    Rinaldo, Tibshirani and Wasserman, 2018, https://arxiv.org/abs/1604.04173, section
    5.2 for the scaled form.

    **Arguments:**

    - `quantile`: q.
    """

    quantile: Float[Array, ""]

    @classmethod
    def fit(
        cls,
        y: Float[Array | np.ndarray, " rows"],
        mean: Float[Array | np.ndarray, " rows"],
        std: Float[Array | np.ndarray, " rows"] | None = None,
        *,
        level: float,
    ) -> "SplitConformal":
        """Fit q on held-out rows.

        **Arguments:**

        - `y`: outcomes of rows that were not trained on.
        - `mean`, `std`: their predictions. Without `std` all intervals have one width.
        - `level`: guaranteed coverage.
        """
        y, mean, std = _with_scale(**near_zero(y=y, mean=mean), std=std)
        return cls(conformal_quantile(jnp.abs(y - mean) / std, level))

    def __call__(
        self,
        mean: Float[Array | np.ndarray, " rows"],
        std: Float[Array | np.ndarray, " rows"] | None = None,
    ) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
        """Return lower and upper ends. Give `std` if it was given to `fit`."""
        mean, std = _with_scale(mean=mean, std=std)
        half = self.quantile.astype(mean.dtype) * std
        return mean - half, mean + half


class ConformalQuantiles(eqx.Module):
    r"""Conformalised quantile regression: $[l(x) - q, u(x) + q]$, q the conformal
    quantile of $\max(l - y, y - u)$.

    The intervals keep the shape of the quantiles, and q is negative if the quantiles
    are too far apart.

    Reference: *Conformalized quantile regression*, Romano, Patterson and Candès, 2019,
    https://arxiv.org/abs/1905.03222, algorithm 1.

    **Arguments:**

    - `quantile`: q.
    """

    quantile: Float[Array, ""]

    @classmethod
    def fit(
        cls,
        y: Float[Array | np.ndarray, " rows"],
        lower: Float[Array | np.ndarray, " rows"],
        upper: Float[Array | np.ndarray, " rows"],
        *,
        level: float,
    ) -> "ConformalQuantiles":
        """Fit q on held-out rows.

        **Arguments:**

        - `y`: outcomes of rows that were not trained on.
        - `lower`, `upper`: predicted quantiles, best of orders (1 -+ level) / 2.
        - `level`: guaranteed coverage.
        """
        y, lower, upper = floats(**near_zero(y=y, lower=lower, upper=upper))
        check_same_shape(y=y, lower=lower, upper=upper)
        return cls(conformal_quantile(jnp.maximum(lower - y, y - upper), level))

    def __call__(
        self,
        lower: Float[Array | np.ndarray, " rows"],
        upper: Float[Array | np.ndarray, " rows"],
    ) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
        """Return the corrected ends. Ends that cross are set to their midpoint."""
        lower, upper = floats(lower=lower, upper=upper)
        check_same_shape(lower=lower, upper=upper)
        middle = (lower + upper) / 2
        quantile = self.quantile.astype(lower.dtype)
        low, high = lower - quantile, upper + quantile
        crossed = low > high
        return jnp.where(crossed, middle, low), jnp.where(crossed, middle, high)


def _with_scale(*, std, **arrays):
    """Return checked arrays of one shape, with a `std` of ones if none is given."""
    if std is None:
        *values, std = *floats(**arrays), None
        check_same_shape(**dict(zip(arrays, values, strict=True)))
        return [*values, jnp.ones_like(values[0])]
    *values, std = floats(**arrays, std=std)
    check_same_shape(**dict(zip(arrays, values, strict=True)), std=std)
    check_positive("std", std)
    return [*values, std]
