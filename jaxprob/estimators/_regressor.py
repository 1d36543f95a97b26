"""Regression with scikit-learn's interface."""

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from .. import bnn
from ..datasets import Standardizer
from ._base import AbstractEstimator, check_settings, train


class BNNRegressor(RegressorMixin, AbstractEstimator):
    """A Bayesian neural network for tables with real-valued targets.

    Inputs and targets are standardised on the rows that `fit` is given, and all
    predictions are in the units of `y`. The noise level is learned, one for each
    target.

    ```python
    model = BNNRegressor(random_state=0).fit(X, y)
    mean, std = model.predict(X_test, return_std=True)
    lower, upper = model.predict_interval(X_test, level=0.9)
    ```

    For another likelihood or prior, or for networks of other inputs, use `jaxprob.bnn`,
    which takes five lines.

    **Arguments:**

    - `method`: `"ensemble"` (five networks), `"map"`, `"laplace"`, `"mean_field_vi"`,
        or a function `(log_joint, num_steps) -> inference method` of `jaxprob.bnn`. A
        sampler with `random=True` samples the noise too; without it the noise is fixed.
    - `hidden`: widths of the hidden layers, all equal.
    - `network`: a function `(num_features, num_outputs, key=key) -> module` that
        replaces `hidden`.
    - `prior_scale`: scale of the Gaussian prior before division by the root of fan-in.
    - `num_epochs`, `batch_size`, `learning_rate`: settings of the training by Adam.
    - `num_samples`: models in the predictive; by default all of an ensemble, else 100.
    - `random_state`: an integer makes the results reproducible.
    - `verbose`: whether to show a progress bar.

    After `fit`: `posterior_`, `history_`, `n_features_in_`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNRegressor":
        """Train on a table.

        **Arguments:**

        - `X`: `(rows, features)`.
        - `y`: `(rows,)`, or `(rows, targets)`.
        - `sample_weight`: `(rows,)`, how often each row counts in the likelihood. A
            weight of 2 is the row twice, so weights whose mean is not 1 widen or narrow
            the posterior. The standardisation does not see them.
        """
        check_settings(self)
        X, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        targets = np.asarray(y, np.float64).reshape(len(X), -1)
        self._single = np.ndim(y) == 1
        self._units = Standardizer.fit(targets, constant="keep")
        num_outputs = targets.shape[1]
        self._fitted = train(
            self,
            np.asarray(X, np.float64),
            self._units(targets).astype(np.float32),
            bnn.HeteroscedasticNormal(),
            lambda network: bnn.LearnedNoise(network, shape=(num_outputs,)),
            num_outputs,
            sample_weight,
        )
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Return the mean of y and, with `return_std`, the deviation of a new y.

        The standard deviation includes the noise and the epistemic uncertainty.
        """
        predictive, rows = self._predictive(X)
        mean = self._shaped(self._units.inverse(np.asarray(predictive.mean)), rows)
        if not return_std:
            return mean
        std = self._units.inverse_scale(np.asarray(predictive.std))
        return mean, self._shaped(std, rows)

    def predict_interval(
        self, X: Any, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval that contains y with probability `level`."""
        predictive, rows = self._predictive(X)
        lower, upper = (
            self._shaped(self._units.inverse(np.asarray(end)), rows)
            for end in predictive.interval(level)
        )
        return lower, upper

    def predict_variances(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the epistemic and the aleatoric variance, in squared units of y."""
        predictive, rows = self._predictive(X)
        unit = self._units.inverse_scale
        epistemic, aleatoric = (
            self._shaped(unit(np.sqrt(np.asarray(part))) ** 2, rows)
            for part in (predictive.epistemic, predictive.aleatoric)
        )
        return epistemic, aleatoric

    def _shaped(self, values, rows):
        values = np.asarray(values, np.float64)[:rows]
        return values[:, 0] if self._single else values

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
