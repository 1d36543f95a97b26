"""Tables as people have them, efforts, and noise that depends on the inputs."""

from typing import Any

import numpy as np
import pytest

import jaxprob
from jaxprob.estimators import BNNClassifier, BNNRegressor, _train
from jaxprob.estimators._columns import Columns, needs_columns
from jaxprob.estimators._effort import RECIPES, Recipe, chosen_method

pd = pytest.importorskip("pandas")


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "city": ["rome", "oslo", None, "rome"],
            "rooms": pd.array([1, 2, None, 3], dtype="Int64"),
            "area": [10.0, np.nan, 30.0, 20.0],
            "new": [True, False, False, True],
            "heat": pd.Categorical(["gas", "oil", "gas", "gas"]),
            "rent": [1, 2, 3, 4],
        }
    )


def test_columns_become_the_numbers_that_they_stand_for(table):
    assert needs_columns(table)
    assert not needs_columns(table[["rent"]])
    assert not needs_columns(table.to_numpy())
    columns = Columns.fit(table)
    assert columns.values == (
        ("oslo", "rome"), None, None, ("False", "True"), ("gas", "oil"), None,
    )  # fmt: skip
    expected = [
        # oslo rome  rooms gap  area gap  new: no yes  gas oil  rent
        [0, 1, 1, 0, 10, 0, 0, 1, 1, 0, 1],
        [1, 0, 2, 0, 20, 1, 1, 0, 0, 1, 2],
        [0, 0, 2, 1, 30, 0, 1, 0, 1, 0, 3],
        [0, 1, 3, 0, 20, 0, 0, 1, 1, 0, 4],
    ]
    np.testing.assert_array_equal(columns(table), expected)
    # Another table has the columns and the means of the first.
    other = table.iloc[[0]].assign(city="oslo", area=np.nan, rent=9)
    np.testing.assert_array_equal(columns(other), [[1, 0, 1, 0, 20, 1, 0, 1, 1, 0, 9]])


def test_what_a_table_cannot_mean_is_named(table):
    columns = Columns.fit(table)
    with pytest.warns(UserWarning, match="column 'city' of X .* has not seen: bonn"):
        found = columns(table.assign(city="bonn"))
    np.testing.assert_array_equal(found[:, :2], 0.0)
    with pytest.warns(UserWarning, match="column 'rent' of X has missing values"):
        found = columns(table.assign(rent=np.nan))
    np.testing.assert_array_equal(found[:, -1], 2.5)
    with pytest.raises(ValueError, match="column 'rent' of X was numbers in fit"):
        columns(table.assign(rent="cheap"))
    with pytest.raises(ValueError, match="column 'area' of X has no value"):
        Columns.fit(table.assign(area=np.nan))
    with pytest.raises(ValueError, match="named 'city'"):
        Columns.fit(table[["city", "rent", "city"]])


def fast(**settings):
    return BNNRegressor("map", hidden=(8,), num_steps=40, random_state=0, **settings)


@pytest.mark.slow
def test_a_frame_is_fitted_predicted_and_saved(table, tmp_path):
    X = pd.concat([table] * 6, ignore_index=True)
    y = np.arange(24.0)
    model: Any = fast().fit(X, y)
    assert list(model.feature_names_in_) == list(table.columns)
    expected = model.predict(X)
    assert np.isfinite(expected).all()
    jaxprob.save(tmp_path / "model.safetensors", model)
    loaded = jaxprob.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), expected)
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(X[X.columns[::-1]])
    with pytest.raises(TypeError, match="give a DataFrame with the same columns"):
        model.predict(X.to_numpy())
    with pytest.raises(ValueError, match="row 2 of X is infinite in the column 'rent'"):
        model.predict(X.assign(rent=[1.0, 2.0, np.inf, *[0.0] * 21]))
    labels = np.where(y < 12, "low", "high")
    classifier = BNNClassifier("map", hidden=(8,), num_steps=40, random_state=0)
    assert set(classifier.fit(X, labels).predict(X)) <= {"low", "high"}


@pytest.mark.slow
def test_quantiles_are_those_of_the_intervals():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), 1e3 * rng.normal(size=(60, 2))
    model = fast().fit(X, y)
    found = model.predict_quantiles(X[:5], [0.05, 0.5, 0.95])
    assert found.shape == (5, 3, 2)
    lower, upper = model.predict_interval(X[:5], 0.9)
    np.testing.assert_allclose(found[:, 0], lower, rtol=1e-6)
    np.testing.assert_allclose(found[:, 2], upper, rtol=1e-6)
    assert fast().fit(X, y[:, 0]).predict_quantiles(X[:5], 0.5).shape == (5, 1)
    with pytest.raises(ValueError, match="levels between 0 and 1"):
        model.predict_quantiles(X, [0.5, 1.0])


def test_the_effort_chooses_the_method():
    assert chosen_method("auto", "fast", 100) == "ensemble"
    assert chosen_method("auto", "default", 10_000) == "chains"
    assert chosen_method("auto", "default", 10_001) == "ensemble"
    assert chosen_method("auto", "best", 10_001) == "chains"
    assert chosen_method("laplace", "best", 10) == "laplace"
    recipe = RECIPES["default"]
    assert recipe.transitions(1500) == recipe.num_transitions
    assert recipe.transitions(3000) == recipe.num_transitions // 2
    assert recipe.transitions(10**6) == 1500


@pytest.mark.slow
def test_chains_find_the_noise_of_each_half(monkeypatch):
    """A line with noise of .1 on the left and of .5 on the right."""
    short = Recipe(num_members=4, num_steps=1500, num_transitions=1500)
    monkeypatch.setattr(_train, "recipe_of", lambda effort, recipes: short)
    rng = np.random.default_rng(0)
    X = rng.uniform(-1.0, 1.0, size=(600, 1))
    noise = np.where(X[:, 0] < 0.0, 0.1, 0.5)
    y = X[:, 0] + noise * rng.normal(size=600)
    model = BNNRegressor(random_state=0, hidden=(16, 16)).fit(X[:300], y[:300])
    assert model.posterior_.num_atoms == 4 * 50
    _, std = model.predict(X[300:], return_std=True)
    away = np.abs(X[300:, 0]) > 0.2
    right = X[300:, 0] > 0.0
    # 150 rows on each side: five standard errors of a standard deviation are .3.
    assert abs(np.mean(std[away & ~right]) / 0.1 - 1.0) < 0.3
    assert abs(np.mean(std[away & right]) / 0.5 - 1.0) < 0.3
    lower, upper = model.predict_interval(X[300:], 0.9)
    inside = np.mean((lower <= y[300:]) & (y[300:] <= upper))
    assert abs(inside - 0.9) < 5 * np.sqrt(0.09 / 300)
    epistemic, _ = model.predict_variances(np.asarray([[0.5], [5.0]]))
    assert epistemic[1] > 10.0 * epistemic[0]
