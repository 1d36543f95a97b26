"""Scores of an estimator on rows of a table."""

import json
from typing import Any

import numpy as np

from .. import metrics
from ._run import SCORES, Run, write_text

QUANTILES = np.arange(1, 100) / 100.0
LEVELS = (0.5, 0.9, 0.95)


def table_scores(estimator: Any, task: str, x: Any, y: np.ndarray) -> dict[str, float]:
    """Return scores by name."""
    if task == "classification":
        return _class_scores(estimator, x, y)
    mean = np.asarray(estimator.predict(x), np.float64)
    quantiles = estimator.predict_quantiles(x, QUANTILES)
    error = y - mean
    scores = {
        "rows": float(len(y)),
        "RMSE": float(np.sqrt(np.mean(error**2))),
        "MAE": float(np.mean(np.abs(error))),
        "CRPS": float(np.mean(crps_of_quantiles(y, quantiles))),
    }
    for level in LEVELS:
        lower, upper = estimator.predict_interval(x, level)
        inside = np.mean((lower <= y) & (y <= upper))
        scores[f"coverage of the {level:.0%} interval"] = float(inside)
        scores[f"width of the {level:.0%} interval"] = float(np.mean(upper - lower))
    return scores


def crps_of_quantiles(y: np.ndarray, quantiles: np.ndarray) -> np.ndarray:
    """Return the CRPS of each row: twice the mean pinball loss over all levels."""
    below = y[:, None] - quantiles
    losses = np.where(below >= 0.0, QUANTILES * below, (QUANTILES - 1.0) * below)
    return 2.0 * losses.mean(axis=1)


def labels_of(estimator: Any, y: np.ndarray) -> np.ndarray:
    """Return the numbers of class labels.

    **Raises:** `ValueError` for a label that training did not have.
    """
    known = list(estimator.classes_)
    unknown = sorted(set(y.tolist()) - set(known))
    if unknown:
        raise ValueError(
            f"the class {unknown[0]!r} was not among the training rows, whose classes "
            f"are {', '.join(map(str, known[:12]))}"
        )
    return np.searchsorted(np.asarray(known), y).astype(np.int32)


def _class_scores(estimator: Any, x: Any, y: np.ndarray) -> dict[str, float]:
    probs = np.asarray(estimator.predict_proba(x), np.float32)
    labels = labels_of(estimator, y)
    own = np.maximum(probs[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    return {
        "rows": float(len(y)),
        "accuracy": float(metrics.accuracy(labels, probs)),
        "NLL, nats": float(-np.log(own).mean()),
        "Brier score": float(metrics.brier(labels, probs)),
        "ECE": float(metrics.ece(labels, probs)),
    }


def write_scores(run: Run, scores: dict[str, float]) -> None:
    """Write the scores into the folder of the run."""
    write_text(run.folder / SCORES, json.dumps(scores, indent=2))


def print_scores(title: str, scores: dict[str, float]) -> None:
    """Print names and values, one line each."""
    print(title)
    width = max(map(len, scores))
    for name, value in scores.items():
        print(f"  {name:{width}}  {value:.4g}")
