"""Base class of the estimators: from a table to a posterior."""

from typing import Any, no_type_check

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float
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
from ._columns import Columns, is_frame, needs_columns
from ._effort import Effort, chosen_method, recipe_of
from ._methods import Method, make_chains, make_joint, make_method

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
    _columns: Columns | None

    @no_type_check  # scikit-learn: nothing is checked before `fit`
    def __init__(
        self,
        method: Method = "auto",
        *,
        effort: Effort = "default",
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
        self.method = method
        self.effort = effort
        self.hidden = hidden
        self.network = network
        self.prior_scale = prior_scale
        self.num_steps = num_steps
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
        X = numbers_of(self, X)
        return self._fitted.predictive(X), len(X)


def read_columns(estimator: AbstractEstimator, X: Any) -> Any:
    """Return a table as numbers and remember how its columns became such.

    A table of numbers alone is returned as it is, for scikit-learn's own checks.
    """
    estimator._columns = Columns.fit(X) if needs_columns(X) else None
    return X if estimator._columns is None else check_infinite(estimator._columns(X), X)


def keep_names(estimator: AbstractEstimator, table: Any) -> None:
    """Remember number and names of the columns of the table that `fit` was given."""
    if estimator._columns is not None:
        validate_data(estimator, table, reset=True, skip_check_array=True)


def numbers_of(
    estimator: AbstractEstimator, X: Any
) -> Float[np.ndarray, "rows features"]:
    """Return rows to be predicted as numbers, with the columns of `fit`."""
    if estimator._columns is None:
        return np.asarray(validate_data(estimator, X, reset=False), np.float64)
    if not is_frame(X):
        raise TypeError(
            f"X is a {type(X).__name__}, and fit was given a DataFrame with columns of "
            "categories or missing values: give a DataFrame with the same columns"
        )
    validate_data(estimator, X, reset=False, skip_check_array=True)
    return check_infinite(estimator._columns(X), X)


def check_infinite(
    numbers: Float[np.ndarray, "rows features"], X: Any
) -> Float[np.ndarray, "rows features"]:
    """Raise `ValueError` for infinite numbers, with the row and the column."""
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        row = int(bad[0, 0])
        names = [str(n) for n in X.columns if np.isinf(_floats(X[n].iloc[row]))]
        raise ValueError(f"row {row} of X is infinite in the column {names[0]!r}")
    return numbers


def _floats(value):
    return value if isinstance(value, int | float | np.number) else 0.0


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
    data = (inputs, targets)
    if sample_weight is not None:
        weight = _check_sample_weight(sample_weight, x, ensure_non_negative=True)
        data = (inputs, targets, weight.astype(np.float32))
    posterior, estimator.history_ = _infer(
        estimator,
        wrap(network),
        data,
        likelihood,
        (fit_key, posterior_key),
    )
    return Fitted(posterior, likelihood, scaler, predict_key, estimator.num_samples)


def _infer(estimator, model, data, likelihood, keys):
    """Return the posterior over models, and the history of the training."""
    rows, (fit_key, posterior_key) = len(data[0]), keys
    recipe = recipe_of(estimator.effort)
    name = chosen_method(estimator.method, estimator.effort, rows)
    num_steps = estimator.num_steps or recipe.num_steps
    method = make_method(
        name,
        likelihood,
        prior_scale=estimator.prior_scale,
        num_data=rows,
        num_steps=num_steps,
        num_members=recipe.num_members,
        learning_rate=estimator.learning_rate,
    )
    state, history = fit_learner(
        method,
        model,
        data,
        key=fit_key,
        num_steps=num_steps,
        batch_size=min(estimator.batch_size, rows),
        progress=estimator.verbose,
    )
    posterior = method.posterior(state, [data], key=posterior_key)
    if name == "chains":
        joint = make_joint(likelihood, estimator.prior_scale, rows)
        chains = make_chains(joint, posterior, num_transitions=recipe.transitions(rows))
        posterior = bnn.run_chains(
            chains,
            model,
            data,
            key=posterior_key,
            progress=estimator.verbose,
            check_mixing=False,  # each chain explores the mode of its network
        )
    return posterior, history


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
    recipe_of(estimator.effort)
    for name in ("num_steps", "batch_size"):
        value = getattr(estimator, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: give at least 1")
    for name in ("learning_rate", "prior_scale"):
        if not getattr(estimator, name) > 0:
            raise ValueError(
                f"{name}={getattr(estimator, name)}: give a positive number"
            )


def identity(x: jax.Array) -> jax.Array:
    """Return x. pickle finds this name."""
    return x
