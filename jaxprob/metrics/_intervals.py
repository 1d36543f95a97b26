"""Coverage and width of prediction intervals, and a proper score of both."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ._inputs import Weights, check_same_shape, floats, is_concrete, reduce
from ._near_zero import near_zero


def _interval(y, lower, upper):
    moved = near_zero(y=y, lower=lower, upper=upper)
    (y,) = floats(y=moved.pop("y"))
    # A conformal interval from few rows is infinite.
    lower, upper = floats(**moved, allow_infinite=True)
    check_same_shape(y=y, lower=lower, upper=upper)
    if is_concrete(lower) and is_concrete(upper):
        bad = np.asarray(lower) > np.asarray(upper)
        if bad.any():
            where = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"lower{list(where)} = {lower[where]} is above upper{list(where)} = "
                f"{upper[where]}: give sorted ends; quantiles may have crossed"
            )
    dtype = np.result_type(y.dtype, lower.dtype)
    return y.astype(dtype), lower.astype(dtype), upper.astype(dtype)


def coverage(
    y: Float[Array | np.ndarray, "*shape"],
    lower: Float[Array | np.ndarray, "*shape"],
    upper: Float[Array | np.ndarray, "*shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Bool[Array, "*shape"]:
    """Fraction of outcomes within their intervals, ends included.

    An interval at level 0.9 should cover 0.9, to within sqrt(0.9 0.1 / n).

    **Arguments:**

    - `y`: what was observed.
    - `lower`, `upper`: ends of the intervals, of the same shape; they may be infinite.
    - `per_example`: return which are covered.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` for different shapes, NaN, or a lower end above its upper.
    """
    y, lower, upper = _interval(y, lower, upper)
    inside = (lower <= y) & (y <= upper)
    if per_example:
        return reduce(inside, True, sample_weight)
    return reduce(inside.astype(y.dtype), False, sample_weight)


def interval_width(
    lower: Float[Array | np.ndarray, "*shape"],
    upper: Float[Array | np.ndarray, "*shape"],
    *,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Float[Array, "*shape"]:
    """Mean width of the intervals (sharpness). Smaller is better at equal coverage.

    **Arguments:** as for `coverage`.
    """
    lower, upper = floats(lower=lower, upper=upper, allow_infinite=True)
    _, lower, upper = _interval(jnp.zeros_like(lower), lower, upper)
    return reduce(upper - lower, per_example, sample_weight)


def interval_score(
    y: Float[Array | np.ndarray, "*shape"],
    lower: Float[Array | np.ndarray, "*shape"],
    upper: Float[Array | np.ndarray, "*shape"],
    *,
    level: float,
    per_example: bool = False,
    sample_weight: Weights | None = None,
) -> Float[Array, ""] | Float[Array, "*shape"]:
    """Winkler's score of a central interval: its width plus a penalty for each miss.

    (u - l) + (2 / a) (l - y)_+ + (2 / a) (y - u)_+ with a = 1 - level; it is minimised
    in expectation by the quantiles a/2 and 1 - a/2. Strictly Proper Scoring Rules,
    Prediction, and Estimation (Gneiting, Raftery, 2007), section 6.2.

    **Arguments:**

    - `y`, `lower`, `upper`: as for `coverage`.
    - `level`: nominal coverage, between 0 and 1.
    - `per_example`: return one value per element.
    - `sample_weight`: how often each element, or each row, counts; or which do.

    **Raises:** `ValueError` as `coverage` does, and for a level outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level={level}: give a coverage between 0 and 1, such as 0.9")
    y, lower, upper = _interval(y, lower, upper)
    miss = jnp.maximum(lower - y, 0.0) + jnp.maximum(y - upper, 0.0)
    return reduce(
        upper - lower + 2.0 / (1.0 - level) * miss, per_example, sample_weight
    )
