"""Predictions of real outcomes as columns, in the units of y."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from .. import metrics
from .._random.keys import example_keys
from .._types import PRNGKey
from ..bnn import CalibratedPredictive, Predictive
from ..datasets import Standardizer

LEVELS = (0.5, 0.8, 0.9, 0.95)
NUM_DRAWS = 200
"""Draws of each row from which its CRPS is estimated."""


@dataclass(frozen=True, eq=False)
class Forecast:
    """Predictions and outcomes, an entry for each observed target.

    **Fields:**

    - `row`: the row of each entry; a row has one for each of its outputs.
    - `y`, `mean`, `epistemic`, `aleatoric`: outcome, mean and standard deviations.
    - `log_prob`: for each row, in nats; `None` where only quantiles are known.
    - `crps`, `pit`: `None` where the predictive has no distribution function.
    - `intervals`: lower and upper ends by their probability.
    """

    row: Int[np.ndarray, " entries"]
    y: Float[np.ndarray, " entries"]
    mean: Float[np.ndarray, " entries"]
    epistemic: Float[np.ndarray, " entries"]
    aleatoric: Float[np.ndarray, " entries"]
    log_prob: Float[np.ndarray, " rows"] | None
    crps: Float[np.ndarray, " entries"] | None
    pit: Float[np.ndarray, " entries"] | None
    intervals: dict[
        float, tuple[Float[np.ndarray, " entries"], Float[np.ndarray, " entries"]]
    ]
    is_angle: bool = False
    is_discrete: bool = False

    @property
    def std(self) -> Float[np.ndarray, " entries"]:
        """Standard deviation of y."""
        return np.hypot(self.epistemic, self.aleatoric)

    @property
    def error(self) -> Float[np.ndarray, " entries"]:
        """Absolute error of the mean; of angles along the shorter way."""
        difference = self.y - self.mean
        if self.is_angle:
            difference = np.angle(np.exp(1j * difference))
        return np.abs(difference)


def uncalibrated(predictive: Predictive | CalibratedPredictive) -> Predictive:
    """Return the mixture itself, which knows of what kind its outcomes are."""
    if isinstance(predictive, CalibratedPredictive):
        return predictive.uncalibrated
    return predictive


def forecast(
    predictive: Predictive | CalibratedPredictive,
    y: Any,
    *,
    y_scaler: Standardizer | None,
    key: PRNGKey,
) -> Forecast:
    """Return the columns of a predictive of real outcomes.

    **Arguments:**

    - `predictive`: of real outcomes, counts or angles.
    - `y`: targets; a pair `(values, observed)` where some are missing.
    - `y_scaler`: back to the units of y, if both are standardised.
    - `key`: of the draws for the CRPS.
    """
    mixture = uncalibrated(predictive)
    values, seen = _observed(predictive, y)
    place, scale = (
        (lambda a: a, lambda a: a)
        if y_scaler is None
        else (y_scaler.inverse, y_scaler.inverse_scale)
    )

    def column(a):
        return np.asarray(a, np.float64)[seen]

    log_prob = np.asarray(predictive.log_prob(y), np.float64)
    if y_scaler is not None:
        log_prob = log_prob - _log_scales(y_scaler, seen)
    crps, pit, intervals = None, None, {}
    if mixture.has_quantiles:
        draw_key, pit_key = jax.random.split(key)
        draws = np.asarray(
            jax.vmap(lambda k: predictive.sample(key=k))(
                example_keys(draw_key, NUM_DRAWS)
            ),
            np.float32,
        )
        score = metrics.crps_samples(
            np.asarray(values, np.float32), draws, per_example=True
        )
        crps = column(scale(np.asarray(score)))
        pit = column(_pit(predictive, mixture, values, pit_key))
        for level in LEVELS:
            lower, upper = (np.asarray(end) for end in predictive.interval(level))
            intervals[level] = column(place(lower)), column(place(upper))
    return Forecast(
        np.argwhere(seen)[:, 0],
        column(place(np.asarray(values, np.float64))),
        column(place(np.asarray(predictive.mean))),
        column(scale(np.sqrt(np.asarray(predictive.epistemic)))),
        column(scale(np.sqrt(np.asarray(predictive.aleatoric)))),
        log_prob,
        crps,
        pit,
        intervals,
        mixture.is_angle,
        mixture.is_discrete,
    )


def _pit(predictive, mixture, values, key):
    at = predictive.cdf(values)
    if not mixture.is_discrete:
        return np.clip(np.asarray(at), 0.0, 1.0)
    below = np.minimum(np.asarray(predictive.cdf(values - 1)), np.asarray(at))
    return metrics.pit_counts(np.asarray(at), below, key=key)


def _observed(predictive: Any, y: Any) -> tuple[np.ndarray, Bool[np.ndarray, "..."]]:
    """Return the targets, with the mean where nothing was observed, and a mask."""
    checked = uncalibrated(predictive).check_targets(y)
    if not isinstance(checked, tuple):
        values = np.asarray(checked)
        return values, np.ones(values.shape, bool)
    values, seen = np.asarray(checked[0]), np.asarray(checked[1], bool)
    seen = np.broadcast_to(
        seen.reshape(seen.shape + (1,) * (values.ndim - seen.ndim)), values.shape
    )
    middle = np.asarray(predictive.mean).astype(values.dtype)
    return np.where(seen, values, middle), seen


def _log_scales(scaler: Standardizer, seen: np.ndarray) -> np.ndarray:
    """Sum of log std over the observed outputs of each row."""
    logs = np.broadcast_to(np.log(scaler.std), seen.shape)
    return np.where(seen, logs, 0.0).reshape(len(seen), -1).sum(axis=1)
