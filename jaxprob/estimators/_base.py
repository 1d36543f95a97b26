"""Base class of the estimators: from a table to a posterior."""

from typing import Any, no_type_check

import equinox as eqx
import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from .. import bnn
from .._engine.fit import fit as fit_learner
from ..datasets import Standardizer
from ._methods import Method, make_method

CHUNK = 256
"""Rows predicted at a time. The last batch is padded to the same size, so that the
prediction of a row does not depend on the other rows."""


class Fitted:
    """A trained posterior with the scaler that maps rows of the table to its inputs."""

    def __init__(
        self, posterior: bnn.AbstractPosterior, likelihood: bnn.Likelihood,
        scaler: Standardizer, key: Any, num_samples: int | None,
    ):  # fmt: skip
        self.posterior = posterior
        self.likelihood = likelihood
        self.scaler = scaler
        self.key = key
        self.num_samples = num_samples

    def predictive(self, x: np.ndarray) -> bnn.Predictive:
        """Return the mixture over the posterior's models, padded to whole batches."""
        x = self.scaler(x).astype(np.float32)
        short = -len(x) % CHUNK
        padded = np.concatenate([x, np.repeat(x[:1], short, axis=0)])
        return bnn.predict(
            self.posterior,
            self.likelihood,
            padded,
            key=self.key,
            num_samples=self.num_samples,
            batch_size=CHUNK,
        )


class AbstractEstimator(BaseEstimator):
    """Base class that holds the settings of both estimators."""

    history_: Any
    _fitted: Fitted

    @no_type_check  # scikit-learn: nothing is checked before `fit`
    def __init__(
        self,
        method: Method = "ensemble",
        *,
        hidden: tuple[int, ...] = (50,),
        network: Any = None,
        prior_scale: float = 2.0,
        num_epochs: int = 200,
        batch_size: int = 32,
        learning_rate: float = 1e-2,
        num_samples: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.method = method
        self.hidden = hidden
        self.network = network
        self.prior_scale = prior_scale
        self.num_epochs = num_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.num_samples = num_samples
        self.random_state = random_state
        self.verbose = verbose

    @property
    def posterior_(self) -> bnn.AbstractPosterior:
        """The posterior over networks, of standardised inputs and targets."""
        if "_fitted" not in vars(self):
            raise AttributeError("this estimator has no posterior_ yet: call fit(X, y)")
        return self._fitted.posterior

    def _predictive(self, X):
        """Return the padded predictive of a table and its number of rows."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False)
        return self._fitted.predictive(np.asarray(X, np.float64)), len(X)


def train(
    estimator: AbstractEstimator,
    x: np.ndarray,
    targets: np.ndarray,
    likelihood: bnn.Likelihood,
    wrap: Any,
    num_outputs: int,
    sample_weight: Any = None,
) -> Fitted:
    """Standardise the inputs, build the network and train it."""
    seed = check_random_state(estimator.random_state).randint(2**31 - 1)
    model_key, fit_key, posterior_key, predict_key = jax.random.split(
        jax.random.key(seed), 4
    )
    scaler = Standardizer.fit(x, constant="keep")
    inputs = scaler(x).astype(np.float32)
    network = _network(estimator, x.shape[1], num_outputs, model_key)
    batch_size = min(estimator.batch_size, len(x))
    num_steps = estimator.num_epochs * -(-len(x) // batch_size)
    method = make_method(
        estimator.method,
        likelihood,
        prior_scale=estimator.prior_scale,
        num_data=len(x),
        num_steps=num_steps,
        learning_rate=estimator.learning_rate,
    )
    data = (inputs, targets)
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        data = (inputs, targets, weight.astype(np.float32))
    state, history = fit_learner(
        method,
        wrap(network),
        data,
        key=fit_key,
        num_steps=num_steps,
        batch_size=batch_size,
        progress=estimator.verbose,
    )
    posterior = method.posterior(state, [data], key=posterior_key)
    estimator.history_ = history
    return Fitted(posterior, likelihood, scaler, predict_key, estimator.num_samples)


def _network(estimator, num_features, num_outputs, key):
    if callable(estimator.network):
        return estimator.network(num_features, num_outputs, key=key)
    sizes = tuple(estimator.hidden)
    if not sizes:
        return eqx.nn.Linear(num_features, num_outputs, key=key)
    if len(set(sizes)) > 1:
        raise ValueError(
            f"hidden={sizes}: the built-in network has hidden layers of one width. For "
            "other networks give network=(num_features, num_outputs, key) -> module"
        )
    return eqx.nn.MLP(
        num_features, num_outputs, sizes[0], len(sizes), silu, identity, key=key
    )


def silu(x: jax.Array) -> jax.Array:
    """Return `jax.nn.silu(x)`; pickle cannot find the original, which jit wraps."""
    return jax.nn.silu(x)


def check_settings(estimator: AbstractEstimator) -> None:
    """Reject settings that are out of range, by name."""
    for name in ("num_epochs", "batch_size"):
        if getattr(estimator, name) < 1:
            raise ValueError(f"{name}={getattr(estimator, name)}: give at least 1")
    for name in ("learning_rate", "prior_scale"):
        if not getattr(estimator, name) > 0:
            raise ValueError(
                f"{name}={getattr(estimator, name)}: give a positive number"
            )


def identity(x: jax.Array) -> jax.Array:
    """Return x. pickle finds this name."""
    return x
