"""Report of an estimator that was trained on a table."""

from pathlib import Path
from typing import Any

import numpy as np

from ..report import Report, Section, Table
from ..report._baselines import class_baselines, real_baselines
from ..report._classes import class_sections
from ..report._forecast import LEVELS, Forecast
from ..report._regression import regression_sections
from ._evaluate import held_out_rows
from ._load import table_run
from ._run import Run
from ._score_table import QUANTILES, crps_of_quantiles, labels_of


def table_report(found: Run, data: str | None) -> Report:
    """Return the page of a run on held-out or on new rows."""
    estimator, config, task = table_run(found, "report")
    x, y, x_train, y_train = held_out_rows(found, data)
    names = _numbers(x if x_train is None else x_train, x)
    numbers = _columns(x, names)
    train = None if x_train is None else (_columns(x_train, names), y_train)
    if task == "classification":
        sections = _classes(estimator, x, y, numbers, names, train)
    else:
        columns = forecast_of(estimator, x, y)
        baselines = {}
        if train is not None:
            baselines = real_baselines(y[:, None], numbers, train, is_discrete=False)
        sections = regression_sections(
            columns, baselines, x=numbers, names=names, label=config.target
        )
    facts = [
        ("data", data or f"held-out rows of {Path(config.data).name}"),
        ("rows", len(y)),
        ("target", config.target),
        ("task", task),
        *((k, str(v)) for k, v in vars(config).items() if k in SHOWN),
        *((k, v) for k, v in found.record["versions"].items() if k in SHOWN),
    ]
    top = Section("Run", [Table(("", ""), facts)])
    return Report(f"{config.target} of {Path(config.data).name}", [top, *sections])


SHOWN = ("method", "effort", "noise", "seed", "jaxprob", "jax")


def forecast_of(estimator: Any, x: Any, y: np.ndarray) -> Forecast:
    """Return the columns of a regressor's predictions."""
    quantiles = np.asarray(estimator.predict_quantiles(x, QUANTILES))
    epistemic, aleatoric = estimator.predict_variances(x)
    predictive = estimator.predict_dist(x)
    if predictive.is_discrete:  # F has steps: half-way up, as between quantiles
        pit = np.array([pit_of(*row) for row in zip(y, quantiles, strict=True)])
    else:
        pit = np.asarray(predictive.cdf(y), np.float64)
    return Forecast(
        np.arange(len(y)),
        y,
        np.asarray(estimator.predict(x), np.float64),
        np.sqrt(epistemic),
        np.sqrt(aleatoric),
        np.asarray(predictive.log_prob(y), np.float64),
        crps_of_quantiles(y, quantiles),
        pit,
        {level: estimator.predict_interval(x, level) for level in LEVELS},
    )


def pit_of(y: float, quantiles: np.ndarray) -> float:
    """Return F(y), linear between quantiles and half-way beyond the outer ones."""
    half = QUANTILES[0] / 2.0
    return float(np.interp(y, quantiles, QUANTILES, left=half, right=1.0 - half))


def _classes(estimator, x, y, numbers, names, train):
    probs = np.asarray(estimator.predict_proba(x), np.float64)
    _, information = estimator.predict_entropy(x)
    labels = labels_of(estimator, y)
    baselines = {}
    if train is not None:
        rows = train[0], labels_of(estimator, train[1])
        baselines = class_baselines(labels, numbers, rows, probs.shape[1])
    return class_sections(
        labels,
        np.log(np.maximum(probs, np.finfo(np.float32).tiny)),
        np.asarray(information, np.float64),
        baselines,
        class_names=list(map(str, estimator.classes_)),
        x=numbers,
        names=names,
    )


def _numbers(*tables: Any) -> list[str]:
    """Return the columns of numbers without gaps in all tables."""
    numbers = tables[0].select_dtypes("number").columns
    return [name for name in numbers if all(t[name].notna().all() for t in tables)]


def _columns(table: Any, names: list[str]) -> np.ndarray | None:
    return table[names].to_numpy(np.float64) if names else None
