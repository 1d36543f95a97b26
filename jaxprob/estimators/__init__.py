"""Bayesian neural networks with scikit-learn's interface.

`BNNRegressor` and `BNNClassifier` standardise, build a network, train it by one of the
methods of `jaxprob.bnn` and predict with uncertainty; they go into scikit-learn's
pipelines, searches and cross-validation.

    model = BNNRegressor(effort="fast", random_state=0).fit(X, y)
    mean, std = model.predict(X_test, return_std=True)
    lower, upper = model.predict_interval(X_test, level=0.9)
    log_prob = model.predict_dist(X_test).log_prob(y_test)

This module imports scikit-learn; `import jaxprob` does not.
"""

from .._exports import public_names as _public_names
from ._regressor import BNNRegressor as BNNRegressor
from ._classifier import BNNClassifier as BNNClassifier
from ._target_predictive import TargetPredictive as TargetPredictive

__all__ = _public_names(__name__)
