"""Base class of the estimators: from a table to a posterior."""

from typing import Any, ClassVar, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from .. import bnn
from ._check_table import check_duplicates, check_new_rows
from ._columns import Columns, is_frame, needs_columns
from ._compiled import Fitted
from ._effort import RECIPES, Effort, Recipe, recipe_of
from ._methods import Method


class AbstractEstimator(BaseEstimator):
    """Base class that holds the settings of both estimators."""

    history_: Any
    _fitted: Fitted
    _columns: Columns | None
    n_features_in_: int
    _recipes: ClassVar[dict[str, Recipe]] = RECIPES

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

    def _numbers(self, X):
        """Return the rows of a table as numbers in its units."""
        check_is_fitted(self)
        X = numbers_of(self, X)
        check_new_rows(self._fitted.scaler(X), column_names(self))
        return X


def column_names(estimator: AbstractEstimator) -> list[str]:
    """Return names of the columns of numbers, made up where the table has none."""
    if estimator._columns is not None:
        return estimator._columns.number_names
    default = [f"x{i}" for i in range(estimator.n_features_in_)]
    return list(vars(estimator).get("feature_names_in_", default))


def weights_of(sample_weight: Any, X: Any) -> np.ndarray | None:
    """Return the weights of the rows after checking them."""
    if sample_weight is None:
        return None
    return _check_sample_weight(sample_weight, X, ensure_non_negative=True)


def read_columns(estimator: AbstractEstimator, X: Any) -> Any:
    """Return a table as numbers and remember how its columns became such.

    A table of numbers alone is returned as it is, for scikit-learn's own checks.
    """
    check_duplicates(X)
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
