"""The benchmark of estimators on tables: its scores are what they say."""

import numpy as np
import pytest

from benchmarks import tables


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(210, 2))
    y = 5.0 + 10.0 * x[:, 0]
    data = tmp_path / "line" / "data"
    data.mkdir(parents=True)
    np.savetxt(data / "data.txt", np.column_stack([x, y]))
    np.savetxt(data / "index_features.txt", [0, 1], fmt="%d")
    np.savetxt(data / "index_target.txt", [2], fmt="%d")
    np.savetxt(data / "index_train_0.txt", np.arange(200), fmt="%d")
    np.savetxt(data / "index_test_0.txt", np.arange(200, 210), fmt="%d")
    return tmp_path, x, y


@pytest.mark.parametrize("inner", [False, True])
def test_scores_of_a_known_gaussian(folder, monkeypatch, inner):
    root, _, _ = folder
    seen = {}

    def known(x, y, x_test):
        seen["rows"] = len(x), len(x_test)
        # One standard deviation off everywhere.
        return tables._gaussian(5.0 + 10.0 * x_test[:, 0] + 2.0, np.asarray(2.0))

    monkeypatch.setitem(tables.METHODS, "known", known)
    found = tables.score("line", "known", 0, str(root), inner=inner)
    assert seen["rows"] == ((160, 40) if inner else (200, 10))
    unit = 2.0 / found["rmse"]
    assert 5.0 < unit < 15.0
    expected = 0.5 + np.log(2.0 / unit) + 0.5 * np.log(2.0 * np.pi)
    np.testing.assert_allclose(found["nll"], expected, rtol=1e-6)
    assert found["cover"] == 1.0
    np.testing.assert_allclose(found["width"], 2 * 1.6448536 * 2.0 / unit, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["forest", "boosting", "process"])
# The length of a column that does not matter grows to its bound.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_other_estimators_learn_a_line(folder, method):
    root, _, _ = folder
    found = tables.score("line", method, 0, str(root), inner=False)
    assert found["rmse"] < 0.5
    assert 0.5 <= found["cover"] <= 1.0
