"""`partial_fit` of the estimators: further rows without the old ones."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_consistent_length, validate_data

from .. import bnn
from ._base import check_settings, keep_names, numbers_of, read_columns, weights_of
from ._noise import Noise, itself
from ._online import is_online, networks_of, with_last_layers, with_rows
from ._rows_of_fit import forget_rows, rows_of_fit
from ._train import train


class AbstractPartialRegressor:
    """Base class that gives a regressor its `partial_fit`."""

    def partial_fit(self: Any, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on the first rows, and update the last layers by further ones.

        The first call trains the networks of an ensemble as `fit` does (`"auto"` and
        `"chains"` stand for `"ensemble"` here), and gives each a Gaussian over its last
        layer. A further call is one recursive update of these Gaussians
        (`bnn.KalmanPosterior`), which takes milliseconds and needs no earlier row.
        Given the layers below and the noise level, it is exact for Gaussian noise, in
        any order and for batches of any size. These and the scalers stay those of the
        first rows, which have to be typical of the stream.

        ```python
        model = BNNRegressor(effort="fast", noise="constant", random_state=0)
        model.partial_fit(X[:12], y[:12])
        model.partial_fit(X[12:], y[12:])
        ```

        **Arguments:** as in `fit`; later calls have the columns of the first.

        After `fit` its rows are the first call, for which the networks are trained
        again.

        **Raises:** `ValueError` with `calibrate`, and for an estimator that was fitted
        and then loaded, whose file has no rows.
        """
        first = _is_first(self)
        if first:
            if self.calibrate is not None:
                raise ValueError(
                    f"calibrate={self.calibrate}: the scores of held-out rows do not "
                    "hold after an update. Give calibrate=None with partial_fit"
                )
            _fit_networks(self, lambda: self.fit(X, y, sample_weight))
        x, y = _rows(self, X, y, y_numeric=True, multi_output=True)
        targets = np.asarray(y, np.float64).reshape(len(x), -1)
        _check_columns(targets, self._num_targets if not first else targets.shape[1])
        self._num_targets = targets.shape[1]
        z = self._target(targets).astype(np.int32 if self._discrete else np.float32)
        named = self.likelihood is None
        num_means = targets.shape[1] if named else None
        _advance(self, first, x, z, weights_of(sample_weight, x), num_means)
        return self


class AbstractPartialClassifier:
    """Base class that gives a classifier its `partial_fit`."""

    def partial_fit(
        self: Any, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> Any:
        """Train on the first rows, and update the last layers by further ones.

        See `BNNRegressor.partial_fit`. For classes an update is an extended Kalman
        filter, in which the order of the rows matters a little.

        **Arguments:** as in `fit`; and

        - `classes`: all classes of the stream, for the first call; by default those of
            its `y`.
        """
        first = _is_first(self, classes)
        if first:
            _fit_networks(
                self, lambda: _fit_classes(self, X, y, classes, sample_weight)
            )
        elif classes is not None and not np.array_equal(
            np.unique(classes), self.classes_
        ):
            raise ValueError(
                f"classes={classes!r} is not the list of the first call, "
                f"{self.classes_.tolist()}: leave it out"
            )
        x, y = _rows(self, X, y)
        weight = self._weights(sample_weight, x, y)
        _advance(self, first, x, _labels(self, y), weight)
        return self


def _is_first(estimator, classes=None):
    """Return whether this is the first call; rows of a `fit` are given to one before.

    **Raises:** `ValueError` if the rows of `fit` are not known.
    """
    if "_fitted" not in vars(estimator):
        return True
    if is_online(estimator._fitted):
        return False
    X, y, sample_weight = rows_of_fit(estimator)
    settings = {} if classes is None else {"classes": classes}
    before = dict(vars(estimator))
    del estimator._fitted
    try:
        estimator.partial_fit(X, y, sample_weight=sample_weight, **settings)
    except BaseException:
        vars(estimator).update(before)  # what was fitted is not lost
        raise
    return False


def _fit_networks(estimator, fit):
    """Call `fit` with a method that trains networks."""
    method = estimator.method
    estimator.method = networks_of(method)
    try:
        fit()
    finally:
        estimator.method = method


def _fit_classes(estimator, X, y, classes, sample_weight):
    check_settings(estimator)
    table, X = X, read_columns(estimator, X)
    X, y = validate_data(estimator, X, y)
    keep_names(estimator, table)
    estimator.classes_ = np.unique(y if classes is None else classes)
    if len(estimator.classes_) < 2:
        raise ValueError(
            f"the first rows hold one class, {estimator.classes_[0]!r}: give "
            "classes=, all classes of the stream"
        )
    labels = _labels(estimator, y)
    noise = Noise(bnn.CategoricalLikelihood(), len(estimator.classes_), (itself,))
    weight = estimator._weights(sample_weight, X, y)
    X = np.asarray(X, np.float64)
    estimator._fitted = train(estimator, X, labels, noise, weight)


def _labels(estimator, y):
    y = np.asarray(y)
    unknown = ~np.isin(y, estimator.classes_)
    if unknown.any():
        row = int(np.argmax(unknown))
        label = y.tolist()[row]
        raise ValueError(
            f"row {row} of y is {label!r}, which is none of the classes of the first "
            f"call, {estimator.classes_.tolist()}: give all of them there, classes="
        )
    return np.searchsorted(estimator.classes_, y).astype(np.int32)


def _rows(estimator, X, y, **checks):
    """Rows as numbers, with the columns of the first call."""
    if estimator._columns is None:
        X, y = validate_data(estimator, X, y, reset=False, **checks)
        return np.asarray(X, np.float64), y
    X = numbers_of(estimator, X)
    y = np.asarray(y)
    check_consistent_length(X, y)
    return X, y


def _check_columns(targets, expected):
    if targets.shape[1] != expected:
        raise ValueError(
            f"y has {targets.shape[1]} columns, and that of the first call had "
            f"{expected}"
        )


def _advance(estimator, first, x, targets, weight, num_means=None):
    forget_rows(estimator)
    fitted = estimator._fitted
    if first:
        estimator._fitted = with_last_layers(
            fitted, estimator.prior_scale, num_means, x, targets, weight
        )
    else:
        estimator._fitted = with_rows(fitted, x, targets, weight)
