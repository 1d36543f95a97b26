"""Regression with scikit-learn's interface."""

from typing import Any, no_type_check

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from .. import bnn
from ..datasets import Standardizer
from ._base import (
    AbstractEstimator,
    check_settings,
    keep_names,
    read_columns,
    train,
)
from ._effort import Effort
from ._methods import Method

NOISE = ("heteroscedastic", "constant")


class BNNRegressor(RegressorMixin, AbstractEstimator):
    """A Bayesian neural network for tables with real-valued targets.

    Inputs and targets are standardised on the rows that `fit` is given, and all
    predictions are in the units of `y`. By default ten networks are trained and are the
    starts of ten chains of `bnn.MCLMC`, whose draws are the posterior; the noise level
    depends on the inputs.

    ```python
    model = BNNRegressor(random_state=0).fit(X, y)
    mean, std = model.predict(X_test, return_std=True)
    lower, upper = model.predict_interval(X_test, level=0.9)
    ```

    The settings were chosen on inner validation rows of five tables of 300 to 1,500
    rows (`python -m benchmarks.tables --inner`).

    For another likelihood or prior, or for networks of other inputs, use `jaxprob.bnn`,
    which takes five lines.

    **Arguments:**

    - `method`: `"auto"`, by the effort; `"chains"`; `"ensemble"`; `"map"`;
        `"laplace"`; `"mean_field_vi"`; or a function `(log_joint, num_steps) ->
        inference method` of `jaxprob.bnn`, where a sampler with `random=True` samples
        the noise level too.
    - `effort`: `"fast"`, an ensemble of five networks, takes seconds for 1,000 rows;
        `"default"`, ten networks and short chains, about a minute on two cores;
        `"best"`, seven times longer chains, by estimate some minutes. Tables of more
        than 10,000 rows get an ensemble by `"default"`, because each step of a chain
        reads all rows.
    - `noise`: `"heteroscedastic"`, a function of the inputs, or `"constant"`, one level
        for each target.
    - `hidden`: widths of the hidden layers, all equal.
    - `network`: a function `(num_features, num_outputs, key=key) -> module` that
        replaces `hidden`. With heteroscedastic noise there are two outputs for each
        target: the means, then the raw scales of `bnn.HeteroscedasticNormal`.
    - `prior_scale`: scale of the Gaussian prior before division by the root of fan-in.
    - `num_steps`: training steps of each network; by default 20,000, and 4,000 and
        30,000 for the efforts `"fast"` and `"best"`.
    - `batch_size`, `learning_rate`: of the training by Adam.
    - `num_samples`: models in the predictive; by default all of an ensemble and all
        draws of chains, else 100.
    - `random_state`: an integer makes the results reproducible.
    - `verbose`: whether to show a progress bar.

    After `fit`: `posterior_`, `history_`, `n_features_in_`.
    """

    @no_type_check  # scikit-learn: nothing is checked before `fit`
    def __init__(
        self,
        method: Method = "auto",
        *,
        effort: Effort = "default",
        noise: str = "heteroscedastic",
        hidden: tuple[int, ...] = (16, 16, 16, 16),
        network: Any = None,
        prior_scale: float = 3.0,
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
        self.noise = noise

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "BNNRegressor":
        """Train on a table.

        **Arguments:**

        - `X`: `(rows, features)`. The columns of a DataFrame may be categories, text or
            booleans, and values may be missing.
        - `y`: `(rows,)`, or `(rows, targets)`.
        - `sample_weight`: `(rows,)`, how often each row counts in the likelihood. A
            weight of 2 is the row twice, so weights whose mean is not 1 widen or narrow
            the posterior. The standardisation does not see them.
        """
        check_settings(self)
        if self.noise not in NOISE:
            raise ValueError(f"noise={self.noise!r}: give one of {', '.join(NOISE)}")
        table, X = X, read_columns(self, X)
        X, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        keep_names(self, table)
        targets = np.asarray(y, np.float64).reshape(len(X), -1)
        self._single = np.ndim(y) == 1
        self._units = Standardizer.fit(targets, constant="keep")
        num_outputs = targets.shape[1]
        varies = self.noise == "heteroscedastic"
        self._fitted = train(
            self,
            np.asarray(X, np.float64),
            self._units(targets).astype(np.float32),
            bnn.HeteroscedasticNormal(1e-3),
            lambda network: (
                network if varies else bnn.LearnedNoise(network, shape=(num_outputs,))
            ),
            2 * num_outputs if varies else num_outputs,
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

    def predict_quantiles(self, X: Any, quantiles: Any = (0.05, 0.5, 0.95)) -> Any:
        """Return quantiles of y: one row each, one column for each level.

        **Arguments:**

        - `X`: `(rows, features)`.
        - `quantiles`: levels in (0, 1).

        **Returns:** `(rows, levels)`, or `(rows, levels, targets)`.
        """
        levels = np.atleast_1d(np.asarray(quantiles, np.float64))
        if levels.ndim != 1 or not np.all((levels > 0.0) & (levels < 1.0)):
            raise ValueError(f"quantiles={quantiles}: give levels between 0 and 1")
        predictive, rows = self._predictive(X)
        columns = [
            self._shaped(self._units.inverse(np.asarray(predictive.quantile(q))), rows)
            for q in levels.tolist()
        ]
        return np.stack(columns, axis=1)

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
