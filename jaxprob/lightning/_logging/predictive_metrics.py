"""Scores of a predictive distribution, summed batch by batch."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PyTree

from ...bnn import Predictive


class PredictiveMetrics:
    """Scores: NLL; accuracy of classes, or RMSE; coverage where there are quantiles.

    With several targets there are the joint NLL, and the other scores of each target.

    **Arguments:**

    - `level`: probability of the central interval whose coverage is counted.
    """

    def __init__(self, level: float = 0.9):
        self._level = level
        self._sums: dict[str, tuple[float, float]] = {}

    def add(
        self,
        predictive: Predictive,
        y: PyTree,
        weights: Float[np.ndarray, " rows"],
    ) -> None:
        """Add a batch, whose rows count as often as their weights say."""
        y = jax.tree.map(lambda a: a.astype(np.int32) if a.dtype == bool else a, y)
        y = _with_masks(y)
        self._add("predictive_nll", -np.asarray(predictive.log_prob(y)), weights)
        targets = y.items() if isinstance(y, dict) else [("", y)]
        for name, target in targets:
            part: Any = predictive[name] if name else predictive
            values, observed = target if isinstance(target, tuple) else (target, None)
            counts = _counts(weights, observed, values)
            ending = f"_{name}" if name else ""
            for score, value in self._scores(part, values).items():
                self._add(score + ending, value, counts)

    def means(self) -> dict[str, float]:
        """Return the scores over all rows added."""
        means = {
            name: total / count for name, (total, count) in self._sums.items() if count
        }
        return {
            name: float(np.sqrt(value)) if name.startswith("rmse") else value
            for name, value in means.items()
        }

    def _scores(self, predictive, y):
        if predictive.is_classification:
            scores = {"accuracy": _correct(np.asarray(predictive.probs), y)}
        else:
            error = np.asarray(predictive.mean) - y
            if predictive.is_angle:
                error = np.angle(np.exp(1j * error))
            scores = {"rmse": error**2}
        if predictive.has_quantiles:
            lower, upper = predictive.interval(self._level)
            covered = (np.asarray(lower) <= y) & (y <= np.asarray(upper))
            scores[f"coverage_{100 * self._level:g}"] = covered
        return scores

    def _add(self, name, values, weights):
        """Add values with a weight for each, or for each row."""
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
        weights = np.broadcast_to(weights, values.shape)
        counted = weights > 0
        total, count = self._sums.get(name, (0.0, 0.0))
        total += float(np.sum(weights[counted] * values[counted], dtype=np.float64))
        self._sums[name] = total, count + float(np.sum(weights, dtype=np.float64))


def _with_masks(y):
    """Targets whose masks, which are bools too, are masks again."""
    if isinstance(y, dict):
        return {name: _with_masks(target) for name, target in y.items()}
    return (y[0], y[1] != 0) if isinstance(y, tuple | list) else y


def _counts(weights, observed, values):
    if observed is None:
        return weights
    weights = weights.reshape(weights.shape + (1,) * (observed.ndim - 1))
    return weights * observed


def _correct(probs, y):
    # A Bernoulli likelihood gives the probability of 1, a categorical one all of them.
    chosen = probs > 0.5 if probs.ndim == y.ndim else probs.argmax(axis=-1)
    return chosen == y
