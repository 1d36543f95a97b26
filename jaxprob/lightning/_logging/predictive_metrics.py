"""Scores of a predictive distribution, summed batch by batch."""

import numpy as np
from jaxtyping import Bool, Shaped

from ...bnn import Predictive


class PredictiveMetrics:
    """Scores: NLL; accuracy of classes, or RMSE; coverage where there are quantiles.

    **Arguments:**

    - `level`: probability of the central interval whose coverage is counted.
    """

    def __init__(self, level: float = 0.9):
        self._level = level
        self._sums: dict[str, float] = {}
        self._rows = 0

    def add(
        self,
        predictive: Predictive,
        y: Shaped[np.ndarray, "rows *out"],
        mask: Bool[np.ndarray, " rows"],
    ) -> None:
        """Add a batch, whose rows count if they are in the mask."""
        if y.dtype == bool:
            y = y.astype(np.int32)
        values = {"predictive_nll": -np.asarray(predictive.log_prob(y))}
        if predictive.is_classification:
            values["accuracy"] = _correct(np.asarray(predictive.probs), y)
        else:
            values["rmse"] = _row_mean((np.asarray(predictive.mean) - y) ** 2)
        if predictive.has_quantiles:
            lower, upper = predictive.interval(self._level)
            covered = (np.asarray(lower) <= y) & (y <= np.asarray(upper))
            values[f"coverage_{100 * self._level:g}"] = _row_mean(covered)
        for name, value in values.items():
            total = float(np.sum(value[mask], dtype=np.float64))
            self._sums[name] = self._sums.get(name, 0.0) + total
        self._rows += int(np.sum(mask))

    def means(self) -> dict[str, float]:
        """Return the scores over all rows added."""
        means = {name: total / self._rows for name, total in self._sums.items()}
        if "rmse" in means:
            means["rmse"] = float(np.sqrt(means["rmse"]))
        return means


def _row_mean(values):
    return values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)


def _correct(probs, y):
    # A Bernoulli likelihood gives the probability of 1, a categorical one all of them.
    chosen = probs > 0.5 if probs.ndim == y.ndim else probs.argmax(axis=-1)
    return _row_mean(chosen == y)
