"""The rows of the last `fit` of each estimator, for a `partial_fit` after it."""

import copy
import weakref
from typing import Any

_rows: weakref.WeakKeyDictionary[Any, tuple[Any, Any, Any]] = (
    weakref.WeakKeyDictionary()
)
"""Kept beside the estimators and not in them: they are neither pickled nor saved."""


def remember_rows(estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
    """Keep a copy of the rows as they were given to `fit`."""
    _rows[estimator] = copy.deepcopy((X, y, sample_weight))


def rows_of_fit(estimator: Any) -> tuple[Any, Any, Any]:
    """Return `(X, y, sample_weight)` of the last `fit`.

    **Raises:** `ValueError` where they are not known, as after loading.
    """
    if estimator not in _rows:
        raise ValueError(
            "this estimator was loaded, and a file has no training rows: its posterior "
            "cannot be updated. Give all rows to partial_fit of a new one, "
            "sklearn.base.clone(estimator)"
        )
    return _rows[estimator]


def forget_rows(estimator: Any) -> None:
    """Free the rows of the last `fit`."""
    _rows.pop(estimator, None)
