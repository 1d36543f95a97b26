"""Classification with scikit-learn's interface."""

from typing import Any, ClassVar, no_type_check

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .. import bnn
from . import _statistics as statistics
from ._base import (
    AbstractEstimator,
    check_settings,
    column_names,
    keep_names,
    read_columns,
    weights_of,
)
from ._check_table import check_training
from ._effort import CLASS_RECIPES, Effort, Recipe
from ._methods import Method
from ._noise import Noise, itself
from ._partial_fit import AbstractPartialClassifier
from ._rows_of_fit import remember_rows
from ._train import train


class BNNClassifier(AbstractPartialClassifier, ClassifierMixin, AbstractEstimator):
    """A Bayesian neural network for tables with class labels.

    ```python
    model = BNNClassifier(random_state=0).fit(X, y)
    probs = model.predict_proba(X_test)
    total, epistemic = model.predict_entropy(X_test)
    ```

    By default ten networks with one layer of 64 units are trained and are the starts of
    ten chains of `bnn.MCLMC`. The settings were chosen on synthetic tables
    (`python -m benchmarks.classes --sets linear nonlinear`).

    **Arguments:** as for `BNNRegressor`, and

    - `num_steps`: training steps of each network; by default at most 2,000, and 4,000
        for the effort `"best"`, as in `BNNRegressor`.
    - `class_weight`: `"balanced"`, or a dict from classes to weights, which multiply
        `sample_weight`. Probabilities are then those of the weighted frequencies:
        without it they are calibrated for the frequencies of `y`.

    After `fit`: `classes_`, `posterior_`, `history_`, `n_features_in_`.
    """

    _recipes: ClassVar[dict[str, Recipe]] = CLASS_RECIPES

    @no_type_check  # scikit-learn: nothing is checked before `fit`
    def __init__(
        self,
        method: Method = "auto",
        *,
        effort: Effort = "default",
        class_weight: Any = None,
        hidden: tuple[int, ...] = (64,),
        network: Any = None,
        prior_scale: float = 4.0,
        num_steps: int | None = None,
        batch_size: int = 128,
        learning_rate: float = 1e-2,
        num_samples: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        super().__init__(
            method,
            effort=effort,
            hidden=hidden,
            network=network,
            prior_scale=prior_scale,
            num_steps=num_steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            num_samples=num_samples,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

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
        X = np.asarray(X, np.float64)
        check_training(X, column_names(self))
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"y holds one class, {self.classes_[0]!r}: give rows of at least two"
            )
        self._fitted = train(
            self,
            X,
            labels.astype(np.int32),
            Noise(bnn.CategoricalLikelihood(), len(self.classes_), (itself,)),
            self._weights(sample_weight, X, y),
        )
        remember_rows(self, table, y, sample_weight)
        return self

    def _weights(self, sample_weight, X, y):
        weight = weights_of(sample_weight, X)
        if self.class_weight is None:
            return weight
        by_class = compute_sample_weight(self.class_weight, y)
        return by_class if weight is None else weight * by_class

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        probs = self.predict_proba(X)
        return self.classes_[np.argmax(probs, axis=1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probabilities of the classes, in the order of `classes_`."""
        X = self._numbers(X)
        probs, _, _ = self._fitted.ask(statistics.classes, X)
        probs = probs.astype(np.float64)
        return probs / probs.sum(axis=1, keepdims=True)

    def predict_entropy(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the entropy of the class in nats and its epistemic part.

        The epistemic part is the mutual information between class and weights.
        """
        X = self._numbers(X)
        _, total, epistemic = self._fitted.ask(statistics.classes, X)
        return total, epistemic
