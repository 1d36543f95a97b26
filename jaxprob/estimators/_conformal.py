"""Conformal calibration of central intervals by the distribution function."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.utils import check_random_state

from ..recalibrate import conformal_quantile
from . import _statistics as statistics
from ._compiled import Fitted

LARGEST = 1.0 - 1e-5
"""Probability beyond which single precision no longer orders the tails."""


def held_out_rows(
    calibrate: float | None, rows: int, random_state: Any
) -> Bool[np.ndarray, " rows"]:
    """Return which rows are held out of the training, a random choice.

    **Raises:** `ValueError` for a share that leaves no row on either side.
    """
    chosen = np.zeros(rows, bool)
    if calibrate is None:
        return chosen
    if not 0.0 < calibrate < 1.0:
        raise ValueError(
            f"calibrate={calibrate}: give a share of the rows between 0 and 1, such as "
            "0.2"
        )
    count = round(calibrate * rows)
    if not 1 <= count <= rows - 2:
        raise ValueError(
            f"calibrate={calibrate} holds {count} of {rows} rows out: at least one is "
            "required there, and two for the training"
        )
    chosen[check_random_state(random_state).permutation(rows)[:count]] = True
    return chosen


@dataclass(frozen=True, eq=False)
class Conformal:
    r"""Scores of held-out rows, from which intervals of every level follow.

    The score of a row is the level of the smallest central interval that contains its
    target, $|2 F(y \mid x) - 1|$. A central interval at the conformal quantile of the
    scores contains a new target with the promised probability, and it is wide where
    the predictive is wide. Beyond `LARGEST` the score is 1 + |z - mean| / deviation.

    Reference: *Distributional conformal prediction*, Chernozhukov, Wüthrich and Zhu,
    2021, https://arxiv.org/abs/1909.07889.

    **Fields:**

    - `scores`: of the held-out rows.
    """

    scores: Float[np.ndarray, "rows targets"]

    @classmethod
    def fit(
        cls,
        fitted: Fitted,
        x: Float[np.ndarray, "rows features"],
        z: Float[np.ndarray, "rows targets"],
        is_discrete: bool,
    ) -> "Conformal":
        """Return the scores of rows that the posterior was not trained on."""
        above = fitted.ask(statistics.cdf, x, _typed(z, is_discrete))
        below = above
        if is_discrete:
            below = fitted.ask(statistics.cdf, x, _typed(z - 1.0, is_discrete))
        inside = np.maximum(1.0 - 2.0 * above, 2.0 * below - 1.0).astype(np.float64)
        mean, parts = fitted.ask(statistics.moments, x)
        far = 1.0 + np.abs(z - mean) / np.sqrt(parts.sum(1))
        return cls(np.where(inside > LARGEST, far, np.maximum(inside, 0.0)))

    def threshold(self, level: float) -> Float[np.ndarray, " targets"]:
        """Return the conformal quantile of the scores, infinite for too few rows."""
        found = [conformal_quantile(column, level) for column in self.scores.T]
        return np.asarray(found, np.float64)

    def is_finite(self, level: float) -> bool:
        """Return whether there are enough held-out rows for a level."""
        return bool(np.isfinite(self.threshold(level)).all())


def _typed(z, is_discrete):
    """Targets in the dtype of the likelihood's distributions."""
    return z.astype(np.int32) if is_discrete else z.astype(np.float32)
