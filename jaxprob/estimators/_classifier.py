"""Classification with scikit-learn's interface."""

from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .. import bnn
from ._base import (
    AbstractEstimator,
    check_settings,
    keep_names,
    read_columns,
    train,
)


class BNNClassifier(ClassifierMixin, AbstractEstimator):
    """A Bayesian neural network for tables with class labels.

    ```python
    model = BNNClassifier(random_state=0).fit(X, y)
    probs = model.predict_proba(X_test)
    total, epistemic = model.predict_entropy(X_test)
    ```

    **Arguments:** as for `BNNRegressor`.

    After `fit`: `classes_`, `posterior_`, `history_`, `n_features_in_`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNClassifier":
        """Train on a table.

        **Arguments:**

        - `X`: as in `BNNRegressor`.
        - `y`: `(rows,)`, labels of any type.
        - `sample_weight`: `(rows,)`, how often each row counts in the likelihood. A
            weight of 2 is the row twice, so weights whose mean is not 1 widen or narrow
            the posterior. For rare classes give those of `bnn.class_weights`. The
            standardisation does not see them.
        """
        check_settings(self)
        table, X = X, read_columns(self, X)
        X, y = validate_data(self, X, y, ensure_min_samples=2)
        keep_names(self, table)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class, {self.classes_[0]!r}: give rows of at least two"
            )
        self._fitted = train(
            self,
            np.asarray(X, np.float64),
            labels.astype(np.int32),
            bnn.CategoricalLikelihood(),
            lambda network: network,
            len(self.classes_),
            sample_weight,
        )
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        probs = self.predict_proba(X)
        return self.classes_[np.argmax(probs, axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, in the order of `classes_`."""
        predictive, rows = self._predictive(X)
        probs = np.asarray(predictive.probs, np.float64)[:rows]
        return probs / probs.sum(axis=1, keepdims=True)

    def predict_entropy(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the entropy of the class in nats and its epistemic part.

        The epistemic part is the mutual information between class and weights.
        """
        predictive, rows = self._predictive(X)
        total, epistemic = predictive.entropy, predictive.mutual_information
        return np.asarray(total)[:rows], np.asarray(epistemic)[:rows]
