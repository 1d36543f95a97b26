"""Regression with scikit-learn's interface."""

from typing import Any, no_type_check

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from .. import bnn
from ._base import (
    AbstractEstimator,
    check_settings,
    column_names,
    keep_names,
    read_columns,
    weights_of,
)
from ._check_table import check_training, check_two_values
from ._conformal import Conformal, held_out_rows
from ._density import density_noise, train_density
from ._effort import Effort
from ._methods import Method
from ._noise import noise_of, noise_of_likelihood
from ._partial_fit import AbstractPartialRegressor
from ._rows_of_fit import remember_rows
from ._target import TargetMap, Transform
from ._target_predictive import TargetPredictive
from ._train import train


class BNNRegressor(AbstractPartialRegressor, RegressorMixin, AbstractEstimator):
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

    For another prior, or for networks of other inputs, use `jaxprob.bnn`, which takes
    five lines.

    **Arguments:**

    - `method`: `"auto"`, by the effort; `"chains"`; `"ensemble"`; `"map"`;
        `"laplace"`; `"mean_field_vi"`; or a function `(log_joint, num_steps) ->
        inference method` of `jaxprob.bnn`, where a sampler with `random=True` samples
        the noise level too. `"diffusion"` learns a density of y of any shape, such as
        with two modes (`jaxprob.diffusion.fit_conditional`): for one target, by
        separate networks, so that `noise`, `hidden` and the like are left out.
    - `effort`: `"fast"`, an ensemble of five networks, takes seconds for 1,000 rows;
        `"default"`, ten networks and short chains, about a minute on two cores;
        `"best"`, seven times longer chains, by estimate some minutes. Tables of more
        than 10,000 rows get an ensemble by `"default"`, because each step of a chain
        reads all rows.
    - `noise`: `"heteroscedastic"`, Gaussian, a function of the inputs; `"constant"`,
        one level for each target; `"student"`, heavy tails (Student's t with four
        degrees of freedom); `"mixed"`, one half of the networks with Gaussian noise and
        the other with heavy tails; `"poisson"` or `"negative_binomial"` for counts.
    - `target`: what the noise is added to: `"standardise"`; `"log"` for positive y, or
        `("log", low)` for y above `low`; `"logit"` for y in (0, 1), or `("logit", low,
        high)`; `"power"`, after Yeo and Johnson, for skewed y; `"none"`. Predictions
        are of y all the same. By default `"standardise"`, and `"none"` for counts.
    - `likelihood`: a function from the output `(num_outputs,)` of the network to a
        numpyro distribution over `(targets,)`, instead of `noise`. y is passed to it as
        it is, unless `target` says otherwise. With `"log"`, `"logit"` or `"power"` the
        noise has to be Gaussian.
    - `num_outputs`: of the network, for `likelihood`; by default one for each target.
    - `calibrate`: share of the rows that is held out of the training, such as .2.
        Intervals and quantiles are then conformal: they contain y with at least the
        promised probability, as long as new rows are like those of `fit`.
    - `hidden`: widths of the hidden layers, all equal.
    - `network`: a function `(num_features, num_outputs, key=key) -> module` that
        replaces `hidden`. With heteroscedastic noise there are two outputs for each
        target: the means, then the raw scales of `bnn.HeteroscedasticNormal`.
    - `prior_scale`: scale of the Gaussian prior before division by the root of fan-in.
    - `num_steps`: training steps of each network. By default at most 20,000, and 4,000
        and 30,000 for the efforts `"fast"` and `"best"`: all methods but
        `"mean_field_vi"` stop where a fifth of the rows, held out of a first training,
        is predicted best, and are then trained on all rows for so many steps.
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
        target: Transform = "auto",
        likelihood: bnn.Likelihood | None = None,
        num_outputs: int | None = None,
        calibrate: float | None = None,
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
        self.target = target
        self.likelihood = likelihood
        self.num_outputs = num_outputs
        self.calibrate = calibrate

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
        table, X = X, read_columns(self, X)
        X, y = validate_data(
            self, X, y, multi_output=True, y_numeric=True, ensure_min_samples=2
        )
        keep_names(self, table)
        X, targets = np.asarray(X, np.float64), np.asarray(y, np.float64)
        check_training(X, column_names(self))
        weight = weights_of(sample_weight, X)
        self._single = targets.ndim == 1
        targets = targets.reshape(len(X), -1)
        check_training(targets, [f"y{i}" for i in range(targets.shape[1])], table="y")
        noise = self._noise_of(targets)
        self._discrete = noise.is_discrete
        transform = noise.transform if self.target == "auto" else self.target
        self._target = TargetMap.fit(transform, targets)
        if not (self._target.is_affine or noise.has_all_moments):
            raise ValueError(
                f"target={self.target!r} with noise={self.noise!r}: the mean of y "
                "would be infinite. Give noise='heteroscedastic'"
            )
        z = self._target(targets).astype(np.int32 if self._discrete else np.float32)
        held_out = held_out_rows(self.calibrate, len(X), self.random_state)
        used = ~held_out
        kept = None if weight is None else weight[used]
        trained = train_density if self.method == "diffusion" else train
        self._fitted = trained(self, X[used], z[used], noise, kept)
        self._conformal = None
        if held_out.any():
            found = z[held_out].astype(np.float64)
            self._conformal = Conformal.fit(
                self._fitted, X[held_out], found, self._discrete
            )
        remember_rows(self, table, y, sample_weight)
        return self

    def _noise_of(self, y):
        if self.method == "diffusion":
            return density_noise(self, y)
        if self.likelihood is not None:
            return noise_of_likelihood(self.likelihood, self.num_outputs, y.shape[1])
        noise = noise_of(self.noise, y)
        if noise.is_discrete and self.target not in ("auto", "none"):
            raise ValueError(
                f"target={self.target!r} with noise={self.noise!r}: counts are not "
                "transformed. Give target='auto'"
            )
        if not noise.is_discrete:
            check_two_values(y)
        return noise

    def predict_dist(self, X: Any) -> TargetPredictive:
        """Return the predictive distribution of y, with its density and draws."""
        X = self._numbers(X)
        return TargetPredictive(
            self._fitted,
            X,
            self._target,
            self._conformal,
            is_single=self._single,
            is_discrete=self._discrete,
        )

    def predict(
        self,
        X: Any,
        return_std: bool = False,
        *,
        return_interval: float | None = None,
        quantiles: Any = None,
    ) -> Any:
        """Return the mean of y, or one of its uncertainty.

        **Arguments:**

        - `X`: `(rows, features)`.
        - `return_std`: return `(mean, std)`. The standard deviation includes the noise
            and the epistemic uncertainty.
        - `return_interval`: a level such as .9. Return both ends of the central
            interval, `(rows, 2)`, instead of the mean: one array, which passes through
            `Pipeline` and `TransformedTargetRegressor`.
        - `quantiles`: levels. Return `predict_quantiles(X, quantiles)`.
        """
        asked = [bool(return_std), return_interval is not None, quantiles is not None]
        if sum(asked) > 1:
            raise ValueError(
                "return_std, return_interval and quantiles: give one of them in a call"
            )
        if quantiles is not None:
            return self.predict_quantiles(X, quantiles)
        if return_interval is not None:
            return np.stack(self.predict_interval(X, return_interval), axis=1)
        predictive = self.predict_dist(X)
        if return_std:
            return predictive.mean, predictive.std
        return predictive.mean

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
        predictive = self.predict_dist(X)
        return np.stack([predictive.quantile(q) for q in levels.tolist()], axis=1)

    def predict_interval(
        self, X: Any, level: float = 0.9
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval that contains y with probability `level`."""
        return self.predict_dist(X).interval(level)

    def predict_variances(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the epistemic and the aleatoric variance, in squared units of y."""
        predictive = self.predict_dist(X)
        return predictive.epistemic, predictive.aleatoric

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.single_output = True
        tags.target_tags.multi_output = True
        return tags
