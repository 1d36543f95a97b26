"""Tables with which a fit would be silently worthless."""

import warnings

import numpy as np
import pytest

from jaxprob.estimators import BNNClassifier, BNNRegressor
from jaxprob.estimators._check_table import (
    check_duplicates,
    check_new_rows,
    check_training,
    check_two_values,
)
from jaxprob.estimators._columns import Columns

pd = pytest.importorskip("pandas")


def table():
    x = np.random.default_rng(0).normal(size=(30, 3))
    return x, ["a", "b", "c"]


def test_a_sound_table_passes():
    x, names = table()
    x[:, 2] = np.arange(30) == 3  # a rare flag is no outlier
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_training(x, names)
        check_new_rows(1e7 * x, names)
        check_two_values(x[:, :2])
        check_two_values(np.asarray([[0.0], [1.0]]))


def test_the_column_is_named():
    x, names = table()
    with pytest.warns(UserWarning, match="constant: 'b'"):
        check_training(x * [1.0, 0.0, 1.0], names)
    x[7, 2] = 1e30
    match = r"row 7 of X has 1e\+30 in the column 'c'.*Correct the value"
    with pytest.warns(UserWarning, match=match):
        check_training(x, names)
    with pytest.raises(ValueError, match=r"row 7 of X is 1e.30 standard.*column 'c'"):
        check_new_rows(x, names)
    x[7, 2] = 1e200
    with pytest.raises(
        ValueError, match=r"row 7 .* column 'c', whose square overflows"
    ):
        check_training(x, names)
    with pytest.warns(UserWarning, match="y has two values, 0 and 2, in 30 rows"):
        check_two_values(2.0 * (x[:, :1] > 0.0))


def test_columns_of_one_name_are_rejected():
    x, _ = table()
    with pytest.raises(ValueError, match="more than one column named 'a'"):
        check_duplicates(pd.DataFrame(x, columns=["a", "b", "a"]))


def test_numbers_have_the_names_of_their_columns():
    frame = pd.DataFrame({"city": ["rome", None, "oslo"], "area": [1.0, np.nan, 2.0]})
    columns = Columns.fit(frame)
    expected = ["city=oslo", "city=rome", "area", "area is missing"]
    assert columns.number_names == expected
    assert columns(frame).shape == (3, 4)


@pytest.mark.slow
def test_estimators_check_their_tables():
    x, names = table()
    X = pd.DataFrame(x, columns=names)
    settings = {"hidden": (), "num_steps": 5, "random_state": 0}
    labels = np.arange(30) % 2
    with pytest.warns(UserWarning, match="y has two values"):
        model = BNNRegressor("map", **settings).fit(X, labels)
    with pytest.raises(ValueError, match=r"row 1 of X is .* in the column 'b'"):
        model.predict(X.assign(b=[0.0, 1e12, *[0.0] * 28]))
    classifier = BNNClassifier("map", **settings)
    with pytest.warns(UserWarning, match="constant: 'b'"):
        classifier.fit(X.assign(b=1.0), np.arange(30) % 3)
