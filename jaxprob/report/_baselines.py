"""Simple predictions that a model has to beat."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .. import metrics
from ._forecast import Forecast
from ._scores import Losses

LINEAR_ROWS = 20_000
"""Training rows of the linear baseline; of more a random part is used."""


def real_losses(forecast: Forecast) -> Losses:
    """Return the losses of a forecast, by row or by entry."""
    losses = {}
    if forecast.log_prob is not None:
        losses["NLL, nats"] = -forecast.log_prob
    if forecast.crps is not None:
        losses["CRPS"] = forecast.crps
    losses["RMSE"] = forecast.error**2
    losses["MAE"] = forecast.error
    if 0.9 in forecast.intervals:
        lower, upper = forecast.intervals[0.9]
        losses["interval score, 90 %"] = _interval(forecast.y, lower, upper)
    return losses


def _interval(y, lower, upper):
    miss = np.maximum(lower - y, 0.0) + np.maximum(y - upper, 0.0)
    return upper - lower + 20.0 * miss


def gaussian_losses(
    y: Float[np.ndarray, "rows out"], mean: Any, std: Any, *, is_discrete: bool
) -> Losses:
    """Return the losses of Gaussian predictions of the same entries."""
    y = np.asarray(y, np.float64)
    mean, std = (
        np.broadcast_to(np.asarray(a, np.float64), y.shape) for a in (mean, std)
    )
    flat = [a.reshape(-1).astype(np.float32) for a in (y, mean, std)]
    half = 1.6448536269514722 * std
    losses = {
        "CRPS": np.asarray(metrics.crps_gaussian(*flat, per_example=True), np.float64),
        "RMSE": ((y - mean) ** 2).reshape(-1),
        "MAE": np.abs(y - mean).reshape(-1),
        "interval score, 90 %": _interval(y, mean - half, mean + half).reshape(-1),
    }
    if is_discrete:
        return losses  # a density is not comparable with a probability
    nll = 0.5 * ((y - mean) / std) ** 2 + np.log(std) + 0.5 * np.log(2.0 * np.pi)
    return {"NLL, nats": nll.sum(axis=1), **losses}


def real_baselines(
    y: Float[np.ndarray, "rows out"],
    x: Any,
    train: tuple[Any, Any],
    *,
    is_discrete: bool,
) -> Mapping[str, Losses]:
    """Return the losses of the training targets' Gaussian and of a ridge regression.

    **Arguments:**

    - `y`, `x`: of the rows that are predicted; without x there is no regression.
    - `train`: x and y of the training rows, in the same units.
    - `is_discrete`: whether y are whole numbers.
    """
    x_train, y_train = train
    y_train = np.asarray(y_train, np.float64).reshape(len(y_train), -1)
    spread = np.maximum(y_train.std(axis=0, ddof=1), np.finfo(np.float32).tiny)
    found = {
        "no inputs": gaussian_losses(
            y, y_train.mean(axis=0), spread, is_discrete=is_discrete
        )
    }
    if x is None or np.ndim(x) != 2 or np.ndim(x_train) != 2:
        return found
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = _part(len(x_train))
    inputs, targets = np.asarray(x_train, np.float64)[rows], y_train[rows]
    means, noise = [], []
    for column in targets.T:
        ridge = RidgeCV(np.logspace(-3, 4, 24))
        model = make_pipeline(StandardScaler(), ridge).fit(inputs, column)
        means.append(model.predict(np.asarray(x, np.float64)))
        # The squared errors of leave-one-out at the chosen penalty.
        score: Any = ridge.best_score_
        noise.append(np.sqrt(-float(score)))
    noise = np.maximum(noise, np.finfo(np.float32).tiny)
    found["linear regression"] = gaussian_losses(
        y, np.stack(means, axis=1), noise, is_discrete=is_discrete
    )
    return found


def class_losses(
    labels: Int[np.ndarray, " rows"], log_probs: Float[np.ndarray, "rows classes"]
) -> Losses:
    """Return the losses of class probabilities."""
    probs = np.exp(log_probs)
    target = np.eye(probs.shape[1])[labels]
    return {
        "NLL, nats": -np.take_along_axis(log_probs, labels[:, None], axis=1)[:, 0],
        "Brier score": ((probs - target) ** 2).sum(axis=1),
        "error rate": (probs.argmax(axis=1) != labels).astype(np.float64),
    }


def class_baselines(
    labels: Int[np.ndarray, " rows"], x: Any, train: tuple[Any, Any], num_classes: int
) -> Mapping[str, Losses]:
    """Return the losses of the classes' frequencies and of a logistic regression."""
    x_train, y_train = train
    y_train = np.asarray(y_train).astype(int).reshape(-1)
    # One more row of each class: no class has the probability zero.
    count = np.bincount(y_train, minlength=num_classes) + 1.0
    rows = np.broadcast_to(np.log(count / count.sum()), (len(labels), num_classes))
    found = {"no inputs": class_losses(labels, rows)}
    present = np.unique(y_train)
    if x is None or np.ndim(x) != 2 or np.ndim(x_train) != 2 or len(present) < 2:
        return found
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    part = _part(len(x_train))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(np.asarray(x_train, np.float64)[part], y_train[part])
    log_probs = np.full((len(labels), num_classes), -np.inf)
    log_probs[:, model.classes_] = model.predict_log_proba(np.asarray(x, np.float64))
    floor = np.log(1.0 / (len(y_train) + num_classes))
    found["logistic regression"] = class_losses(labels, np.maximum(log_probs, floor))
    return found


def _part(rows: int) -> Int[np.ndarray, " rows"]:
    if rows <= LINEAR_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).permutation(rows)[:LINEAR_ROWS])
