"""Splits keep parts apart; what is learned from data is learned from training rows."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.stats
import sklearn.datasets

from jaxprob import datasets
from jaxprob.datasets import Split, Standardizer, train_test_split

from ..unhooked import unhooked

BUNDLED = {
    "diabetes": (442, (10,), None),
    "digits": (1797, (8, 8), 10),
    "breast_cancer": (569, (30,), 2),
    "iris": (150, (4,), 3),
    "wine": (178, (13,), 3),
}


def _data(rows=100, columns=3, dtype=np.float64):
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.arange(columns)
    x = rng.normal(size=(rows, columns)) * scale + 5.0 * scale
    return x.astype(dtype), rng.normal(size=(rows, 1)).astype(dtype)


@pytest.mark.slow
def test_importing_the_readers_imports_no_scikit_learn():
    code = (
        "import sys, jaxprob.datasets; "
        "sys.exit(any(m in sys.modules for m in ('sklearn', 'torch', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_standardized_rows_have_mean_zero_and_scale_one():
    x, _ = _data()
    z = Standardizer.fit(x)(x)
    np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.std(0), 1.0, atol=1e-12)


def test_test_rows_change_nothing_that_is_learned():
    x, y = _data()
    split = train_test_split(x, y, test=0.3, val=0.2)
    wild = Split(
        split.x_train,
        split.y_train,
        split.x_test * 1e6,
        split.y_test - 1e6,
        split.x_val,
        split.y_val,
    )
    ours, x_scaler, y_scaler = split.standardize()
    theirs, x_wild, y_wild = wild.standardize()
    assert y_scaler is not None
    assert y_wild is not None
    np.testing.assert_array_equal(x_scaler.mean, x_wild.mean)
    np.testing.assert_array_equal(y_scaler.std, y_wild.std)
    np.testing.assert_array_equal(ours.x_train, theirs.x_train)
    np.testing.assert_allclose(x_scaler.mean, split.x_train.mean(0))
    assert abs(x_scaler.mean - x.mean(0)).max() > 1e-3


def test_all_parts_go_through_the_same_map():
    x, y = _data()
    split = train_test_split(x, y, test=0.3, val=0.2)
    new, x_scaler, y_scaler = split.standardize()
    assert y_scaler is not None
    for part in ("train", "val", "test"):
        back = x_scaler.inverse(getattr(new, f"x_{part}"))
        np.testing.assert_allclose(back, getattr(split, f"x_{part}"))
        back = y_scaler.inverse(getattr(new, f"y_{part}"))
        np.testing.assert_allclose(back, getattr(split, f"y_{part}"))


def test_predictions_return_to_original_units_with_their_scales_and_densities():
    rng = np.random.default_rng(1)
    y = 40.0 + 7.0 * rng.normal(size=(50, 2))
    scaler = Standardizer.fit(y)
    mean, std = rng.normal(size=(50, 2)), np.exp(rng.normal(size=(50, 2)))
    inside = scipy.stats.norm.logpdf(scaler(y), mean, std).sum(1) + scaler.log_det
    outside = scipy.stats.norm.logpdf(
        y, scaler.inverse(mean), scaler.inverse_scale(std)
    ).sum(1)
    np.testing.assert_allclose(inside, outside, rtol=1e-12)


def test_a_scale_is_not_shifted():
    scaler = Standardizer(np.array([100.0]), np.array([3.0]))
    np.testing.assert_array_equal(scaler.inverse_scale(np.array([[2.0]])), [[6.0]])
    np.testing.assert_array_equal(scaler.inverse(np.array([[2.0]])), [[106.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardised_values_keep_their_dtype_and_original_units_are_double(dtype):
    x, _ = _data(dtype=dtype)
    scaler = Standardizer.fit(x)
    assert scaler(x).dtype == dtype
    for out in (scaler.inverse(x), scaler.inverse_scale(x)):
        assert out.dtype == np.float64


def test_integers_are_standardised_to_fractions():
    scaler = Standardizer(np.array([2.0]), np.array([4.0]))
    np.testing.assert_array_equal(scaler(np.array([[3], [4]])), [[0.25], [0.5]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_offset_takes_no_digits_of_what_was_standardised(dtype):
    z = np.linspace(-1.0, 1.0, 9, dtype=dtype)[:, None]
    scaler = Standardizer(np.array([1e9]), np.array([2.0]))
    np.testing.assert_allclose(scaler.inverse(z) - 1e9, 2.0 * z, atol=1e-6)


def test_statistics_of_float32_are_exact_far_from_zero():
    # A float32 mean of a million would lose the spread of one.
    x = (1e6 + np.arange(64, dtype=np.float64)[:, None] % 2).astype(np.float32)
    scaler = Standardizer.fit(x)
    np.testing.assert_allclose(scaler.std, 0.5)


def test_shared_scale_is_one_number():
    x, _ = _data()
    scaler = Standardizer.fit(x, shared=True)
    assert scaler.mean.shape == scaler.std.shape == ()
    np.testing.assert_allclose(scaler(x).std(), 1.0)


def test_images_with_blank_corners_need_the_shared_scale():
    split = datasets.digits()
    with pytest.raises(ValueError, match=r"x column \(0, 0\) is constant"):
        split.standardize()
    new, _, y_scaler = split.standardize(shared=True)
    assert y_scaler is None
    np.testing.assert_allclose(new.x_train.std(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("value", [3.0, 0.1, 1e-12])
def test_constant_column_is_named_or_kept(value):
    x, _ = _data()
    x[:, 1] = value  # the mean of many 0.1 is not 0.1: its computed spread is not zero
    with pytest.raises(ValueError, match=r"column 1 \(age\) is constant.*keep"):
        Standardizer.fit(x, names=("height", "age", "weight"))
    scaler = Standardizer.fit(x, constant="keep")
    assert scaler.std[1] == 1.0
    np.testing.assert_allclose(scaler(x)[:, 1], 0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        (np.arange(6).reshape(3, 2), TypeError, "x is int64.*astype"),
        (np.ones((1, 2)), ValueError, "one row"),
        (np.empty((0, 2)), ValueError, "empty"),
        (np.array([[1.0, 2.0], [3.0, np.nan]]), ValueError, "row 1, column 1"),
    ],
)
def test_standardizer_names_what_is_wrong(x, error, match):
    with unhooked(), pytest.raises(error, match=match):
        Standardizer.fit(x)


def test_parts_are_disjoint_and_together_all_rows():
    x = np.arange(101.0)[:, None]
    split = train_test_split(x, x, test=0.25, val=0.1, seed=3)
    assert split.x_val is not None
    parts = [split.x_train, split.x_val, split.x_test]
    assert [len(part) for part in parts] == [66, 10, 25]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts), axis=0), x)
    np.testing.assert_array_equal(split.x_train, split.y_train)
    np.testing.assert_array_equal(split.x_test, split.y_test)


def test_seed_decides_the_split_and_may_be_a_key(getkey):
    x, y = _data()
    key = getkey()
    for seed in (7, key):
        a, b = (train_test_split(x, y, seed=seed) for _ in range(2))
        np.testing.assert_array_equal(a.x_train, b.x_train)
    other = train_test_split(x, y, seed=jax.random.fold_in(key, 1))
    assert (train_test_split(x, y, seed=key).x_test != other.x_test).any()
    assert (train_test_split(x, y, seed=7).x_test != other.x_test).any()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"y": np.zeros((99, 1))}, "x has 100, y has 99"),
        ({"x": np.full((100, 3), np.inf)}, "x holds 300 non-finite.*row 0, column 0"),
        ({"x": np.empty((0, 3)), "y": np.empty((0, 1))}, "x is empty"),
        ({"x": np.ones((1, 3)), "y": np.ones((1, 1))}, r"1 row\(s\).*no training row"),
        ({"test": 0.5, "val": 0.5}, "no training row"),
        ({"test": 0.0}, "fractions of all rows"),
        ({"test": 20}, "fractions of all rows"),
    ],
)
def test_split_names_what_is_wrong(change, match):
    x, y = _data()
    with unhooked(), pytest.raises(ValueError, match=match):
        train_test_split(**({"x": x, "y": y} | change))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_set_is_the_whole_of_scikit_learns(name):
    rows, shape, classes = BUNDLED[name]
    split = getattr(datasets, name)(test=0.3, val=0.1)
    x = np.concatenate([split.x_train, split.x_val, split.x_test])
    assert x.shape == (rows, *shape)
    assert x.dtype == np.float32
    options = {"scaled": False} if name == "diabetes" else {}
    raw = getattr(sklearn.datasets, f"load_{name}")(**options).data
    raw = raw.reshape(rows, -1) / (16.0 if name == "digits" else 1.0)
    key = np.sort(raw.astype(np.float32).sum(1))
    np.testing.assert_allclose(np.sort(x.reshape(rows, -1).sum(1)), key, rtol=1e-6)
    if classes is None:
        assert split.y_train.shape == (len(split.x_train), 1)
        with pytest.raises(TypeError, match="real-valued targets"):
            _ = split.num_classes
    else:
        assert split.y_train.dtype == np.int32
        assert split.num_classes == classes == len(np.unique(split.y_train))


def test_repr_tells_shapes_and_not_numbers():
    assert "x_train: float32[1438, 8, 8]" in repr(datasets.digits())
    assert len(repr(datasets.digits())) < 200
