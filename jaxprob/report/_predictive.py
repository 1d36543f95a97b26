"""Report of a predictive and its targets."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._random.keys import check_key
from .._types import PRNGKey
from ..bnn import CalibratedPredictive, Predictive
from ..datasets import Standardizer
from ._baselines import class_baselines, real_baselines
from ._classes import class_sections
from ._forecast import forecast, uncalibrated
from ._parts import Section, Table
from ._regression import regression_sections
from ._report import Report


def predictive_report(
    predictive: Predictive | CalibratedPredictive,
    y: Any,
    *,
    x: Any = None,
    train: tuple[Any, Any] | None = None,
    y_scaler: Standardizer | None = None,
    names: Sequence[str] = (),
    class_names: Sequence[str] = (),
    label: str = "y",
    title: str = "Predictions and outcomes",
    key: PRNGKey | None = None,
) -> Report:
    """Return a page on the worth of predictions and of their uncertainty.

    ```python
    predictive = bnn.predict(posterior, likelihood, x_test, key=key)
    report = predictive_report(predictive, y_test, x=x_test, train=(x_train, y_train))
    report.save("report.html")
    ```

    Scores stand beside those of simple predictions: of the training targets without any
    input, and of a linear or logistic regression. Each difference has the standard
    error of paired rows.

    **Arguments:**

    - `predictive`: of rows that the model was not trained on.
    - `y`: their targets; a pair `(values, observed)` where some are missing, and a dict
        for several targets.
    - `x`: inputs `(rows, columns)` of the same rows, for the linear baseline and for
        the table of the worst rows.
    - `train`: x and y of the training rows, for the baselines. Without them there are
        none.
    - `y_scaler`: of standardised targets. The page is then in the units of y.
    - `names`: of the columns of x.
    - `class_names`: of the classes; by default their numbers.
    - `label`: name and unit of y.
    - `title`: of the page.
    - `key`: of the draws for the CRPS, `jax.random.key(0)` by default.

    **Raises:** `ValueError` for targets or inputs of another number of rows.
    """
    key = jax.random.key(0) if key is None else key
    check_key(key)
    if x is not None and len(x) != predictive_rows(predictive):
        raise ValueError(
            f"x has {len(x)} rows and the predictive {predictive_rows(predictive)}: "
            "give the inputs of the rows that are predicted"
        )
    settings = {"x": x, "names": names, "class_names": class_names}
    if isinstance(y, Mapping):
        sections = []
        for name, values in y.items():
            rows = None if train is None else (train[0], train[1][name])
            part = predictive[name]  # pyright: ignore[reportIndexIssue]
            found = _sections(part, values, rows, None, key, label=name, **settings)
            sections += [Section(f"{name}: {s.title}", s.blocks) for s in found]
    else:
        sections = _sections(
            predictive, y, train, y_scaler, key, label=label, **settings
        )
    return Report(title, [_summary(predictive, label), *sections])


def predictive_rows(predictive: Predictive | CalibratedPredictive) -> int:
    """Return the number of rows of a predictive."""
    return uncalibrated(predictive).num_rows


def _summary(predictive, label) -> Section:
    mixture = uncalibrated(predictive)
    rows = [
        ("rows", mixture.num_rows),
        ("models in the mixture", mixture.num_samples),
        ("likelihood", type(mixture.likelihood).__name__),
        ("target", label),
    ]
    if isinstance(predictive, CalibratedPredictive):
        rows.append(("rescaled on held-out rows by", f"{float(predictive.scale):.4g}"))
    return Section("Predictions", [Table(("", ""), rows)])


def _sections(
    predictive, y, train, y_scaler, key, *, x, names, class_names, label
) -> list[Section]:
    mixture = uncalibrated(predictive)
    if mixture.is_classification:
        return _classification(predictive, y, train, x, names, class_names)
    columns = forecast(predictive, y, y_scaler=y_scaler, key=key)
    shape = np.shape(predictive.mean)
    whole = len(columns.y) == np.prod(shape) and not mixture.is_angle
    baselines = {}
    if train is not None and whole:
        outcomes = columns.y.reshape(shape[0], -1)
        y_train = np.asarray(train[1], np.float64)
        if y_scaler is not None:
            y_train = y_scaler.inverse(y_train)
        baselines = real_baselines(
            outcomes, x, (train[0], y_train), is_discrete=mixture.is_discrete
        )
    return regression_sections(columns, baselines, x=x, names=names, label=label)


def _classification(predictive, y, train, x, names, class_names) -> list[Section]:
    mixture = uncalibrated(predictive)
    labels = np.asarray(mixture.check_targets(y)).astype(int)
    if labels.ndim != 1:
        raise ValueError(
            f"each row has {labels.shape[1:]} labels: a report is of one, so give the "
            "predictive of one label"
        )
    if isinstance(predictive, CalibratedPredictive):
        # Its epistemic part is that of the mixture, and no part of its entropy.
        probs, information = np.asarray(predictive.probs, np.float64), None
        if mixture.is_binary:
            probs = np.stack([1.0 - probs, probs], axis=-1)
        log_probs = np.log(np.maximum(probs, np.finfo(np.float32).tiny))
    else:
        log_probs = np.asarray(mixture.class_log_probs, np.float64)
        information = np.asarray(mixture.mutual_information, np.float64)
    num_classes = log_probs.shape[1]
    class_names = list(map(str, class_names or range(num_classes)))
    if len(class_names) != num_classes:
        raise ValueError(
            f"class_names has {len(class_names)} names, and there are {num_classes} "
            "classes"
        )
    baselines = {}
    if train is not None:
        baselines = class_baselines(labels, x, train, num_classes)
    return class_sections(
        labels,
        log_probs,
        information,
        baselines,
        class_names=class_names,
        x=x,
        names=names,
    )
