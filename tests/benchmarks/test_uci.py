"""The UCI harness: what it may see, what it keeps, and that its figures are good."""

import json

import jax
import numpy as np
import pytest

from benchmarks.uci.__main__ import numbers, run, table
from benchmarks.uci._methods import DEFAULT
from benchmarks.uci._published import LOG_LIKELIHOOD, PROTOCOLS, RMSE, SETS
from benchmarks.uci._scores import Results, score
from benchmarks.uci._task import Task, load

from ..data_folder import data_folder

BEST = {"yacht": (-0.2, 0.8)}
"""Log-likelihood and RMSE that half of the usual steps must reach on three splits.

The other sets take the same path and are measured by the benchmark.
"""


def toy(rows=60, splits=(0, 1), seed=0):
    """Lines with noise of 0.1, stacked as splits of a set."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(splits), rows, 2)).astype(np.float32)
    y = (x[..., :1] + 0.1 * rng.normal(size=(len(splits), rows, 1))).astype(np.float32)
    cut = rows * 9 // 10
    rows_x, rows_y, test_x, test_y = map(
        jax.numpy.asarray, (x[:, :cut], y[:, :cut], x[:, cut:], y[:, cut:])
    )
    units = np.ones(len(splits))
    return Task("toy", splits, rows_x, rows_y, test_x, test_y, units)


@pytest.mark.slow
def test_settings_are_chosen_on_training_rows_alone():
    task = toy()
    inner = task.inner(0.25)
    assert inner.num_data + inner.x_test.shape[1] == task.num_data
    for s in range(2):
        rows = {tuple(row) for row in np.asarray(task.x[s])}
        train = {tuple(row) for row in np.asarray(inner.x[s])}
        held_out = {tuple(row) for row in np.asarray(inner.x_test[s])}
        assert train | held_out == rows
        assert not train & held_out


def test_scores_are_in_original_units():
    rng = np.random.default_rng(0)
    y, units = rng.normal(size=(50, 1)), 3.0
    mean = np.zeros_like(y)
    log_prob = -0.5 * y[:, 0] ** 2 - 0.5 * np.log(2 * np.pi)
    found = score(log_prob, mean, y, (mean - 1.0, mean + 1.0), units)
    # The same model of 3 y has three times the scale.
    z = units * y[:, 0]
    direct = -0.5 * (z / 3) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(3)
    assert found["log_likelihood"] == pytest.approx(direct.mean(), rel=1e-6)
    assert found["rmse"] == pytest.approx(np.sqrt((z**2).mean()), rel=1e-6)
    assert found["coverage_90"] == pytest.approx((np.abs(y) <= 1).mean(), rel=1e-6)
    assert found["width_90"] == pytest.approx(6.0)


def test_results_go_on_and_merge(tmp_path):
    results = Results(tmp_path / "a.json")
    assert results.missing("yacht", "map", range(3)) == [0, 1, 2]
    results.add("yacht", "map", 1, {"rmse": 1.0})
    results.save()
    assert Results(tmp_path / "a.json").missing("yacht", "map", range(3)) == [0, 2]
    other = {"yacht": {"map": {"2": {"rmse": 3.0}}, "swag": {"0": {"rmse": 2.0}}}}
    (tmp_path / "b.json").write_text(json.dumps(other))
    results.merge(tmp_path / "b.json")
    again = Results(tmp_path / "a.json")
    assert again.values("yacht", "map", "rmse") == [1.0, 3.0]
    assert again.values("yacht", "swag", "rmse") == [2.0]
    assert not list(tmp_path.glob("*.part"))


def test_splits_are_read_as_people_write_them():
    assert numbers("0-2,7") == [0, 1, 2, 7]
    assert numbers("4") == [4]


def test_published_rows_fit_the_columns():
    for published in (LOG_LIKELIHOOD, RMSE):
        for protocol, figures in published.values():
            assert protocol in PROTOCOLS
            assert len(figures) == len(SETS)
    results = Results(None)
    for split in range(2):
        results.add("yacht", "map", split, {"rmse": 1.0 + split})
    text = table(results, ["yacht", "energy"], "rmse", RMSE)
    ours = next(line for line in text.splitlines() if line.startswith("ours"))
    assert ours.split()[-4:] == ["1.500", "+-", "0.500", "-"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["map", "laplace", "trees"])
def test_a_method_learns_a_line(method):
    task = toy(rows=200)
    rows = run(task, method, key=jax.random.key(0), quick=True)
    assert len(rows) == 2
    for row in rows:
        assert row["rmse"] < 0.35
        # The noise itself would give .88.
        assert row["log_likelihood"] > 0.0


@pytest.mark.slow
@pytest.mark.parametrize("name", BEST)
def test_the_default_method_is_good_on_real_sets(name):
    task = load(name, str(data_folder("uci")), range(3))
    rows = run(task, DEFAULT, key=jax.random.key(0), quick=True)
    least, most = BEST[name]
    assert np.mean([row["log_likelihood"] for row in rows]) > least
    assert np.mean([row["rmse"] for row in rows]) < most
    assert 0.8 < np.mean([row["coverage_90"] for row in rows]) < 0.99
