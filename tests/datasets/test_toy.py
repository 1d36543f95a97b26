"""Toy sets are what their formulas say, and come from their seed alone."""

import numpy as np
import pytest
import scipy.stats

from jaxprob import datasets
from jaxprob.datasets import (
    gaussian_ring,
    heteroscedastic,
    heteroscedastic_truth,
    spirals,
    two_moons,
)

POINTS = {"two_moons": two_moons, "gaussian_ring": gaussian_ring, "spirals": spirals}


def test_gap_is_empty_and_the_rest_is_evenly_filled():
    split = heteroscedastic(num_train=2000, gap=(0.4, 0.7))
    x = split.x_train[:, 0]
    assert not ((x > 0.4) & (x < 0.7)).any()
    folded = np.where(x < 0.4, x, x - 0.3) / 0.7
    assert scipy.stats.kstest(folded, "uniform").pvalue > 1e-6


def test_noise_is_the_truth():
    split = heteroscedastic(num_train=4000, seed=1)
    mean, std = heteroscedastic_truth(split.x_train.astype(np.float64))
    z = ((split.y_train - mean) / std)[:, 0]
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-6
    covered = np.mean(np.abs(z) < 2.0)
    share = scipy.stats.norm.cdf(2.0) - scipy.stats.norm.cdf(-2.0)
    assert abs(covered - share) < 5 * np.sqrt(share * (1 - share) / len(z))
    assert std.min() >= 0.0
    assert 0.19 < std.max() <= 0.2
    # It grows: the spread of the last tenth is many times that of the first.
    residual, x = (split.y_train - mean)[:, 0], split.x_train[:, 0]
    assert residual[x > 0.9].std() > 10 * residual[x < 0.1].std()


def test_parts_are_drawn_apart():
    split = heteroscedastic()
    assert split.x_val is not None
    x = np.concatenate([split.x_train, split.x_val, split.x_test])
    assert len(np.unique(x)) == len(x) == 500


def test_no_validation_part_on_request():
    assert heteroscedastic(num_val=0).x_val is None


def test_the_training_rows_standardise_the_set():
    data, _, y_scaler = heteroscedastic().standardize()
    assert y_scaler is not None
    for z in (data.x_train, data.y_train):
        np.testing.assert_allclose(z.mean(0), 0.0, atol=1e-6)
        np.testing.assert_allclose(z.std(0), 1.0, atol=1e-6)
    assert abs(data.y_test.mean()) > 1e-4  # by their own mean it would be 0


@pytest.mark.parametrize(
    "change",
    [{"gap": (0.7, 0.4)}, {"gap": (0.0, 1.0)}, {"num_train": 0}, {"num_val": -1}],
)
def test_impossible_sets_are_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        heteroscedastic(**change)


def test_moons_without_noise_are_half_circles():
    x, labels = two_moons(501, noise=0.0)
    upper, lower = x[labels == 0], x[labels == 1]
    assert (len(upper), len(lower)) == (251, 250)
    np.testing.assert_allclose(np.linalg.norm(upper, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(
        np.linalg.norm(lower - [1.0, 0.5], axis=1), 1.0, atol=1e-6
    )
    assert upper[:, 1].min() >= 0.0
    assert lower[:, 1].max() <= 0.5


def test_ring_has_unit_variance_and_its_modes():
    num, std = 20_000, 0.05
    x, labels = gaussian_ring(num, std=std)
    # Var of x^2 is below that of a Gaussian here, so 4 sqrt(2 / n) is generous.
    np.testing.assert_allclose(x.var(0), 1.0, atol=5 * np.sqrt(2 / num))
    for k in range(8):
        points = x[labels == k]
        angle = 2 * np.pi * k / 8
        centre = np.sqrt(2 * (1 - std**2)) * np.array([np.cos(angle), np.sin(angle)])
        error = std / np.sqrt(len(points))
        np.testing.assert_allclose(points.mean(0), centre, atol=5 * error)
        np.testing.assert_allclose(points.std(0), std, rtol=5 / np.sqrt(2 * 2400))


def test_spirals_without_noise_lie_on_their_curves():
    x, labels = spirals(3000, num_arms=3, num_turns=1.5, noise=0.0)
    radius = np.linalg.norm(x, axis=1)
    angle = 2 * np.pi * (1.5 * radius + labels / 3)
    curve = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    np.testing.assert_allclose(x, curve, atol=1e-5)
    assert scipy.stats.kstest(radius**2, "uniform").pvalue > 1e-6
    assert np.bincount(labels).tolist() == [1000, 1000, 1000]


@pytest.mark.parametrize("name", POINTS)
def test_points_come_from_their_seed(name, getkey):
    make = POINTS[name]
    x, labels = make(100, seed=3)
    again, _ = make(100, seed=3)
    other, _ = make(100, seed=4)
    by_key, _ = make(100, seed=getkey())
    assert x.shape == (100, 2)
    assert (x.dtype, labels.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(x, again)
    assert (x != other).all()
    assert (x != by_key).all()
    assert abs(np.diff(labels)).sum() > 20  # in random order: no order to learn


@pytest.mark.parametrize("name", POINTS)
def test_points_refuse_what_makes_no_sense(name):
    with pytest.raises(ValueError, match="num_samples=0"):
        POINTS[name](0)
    spread = "std" if name == "gaussian_ring" else "noise"
    with pytest.raises(ValueError, match="of at least 0"):
        POINTS[name](10, **{spread: -0.1})


@pytest.mark.slow
def test_more_refusals():
    with pytest.raises(ValueError, match="num_modes=2"):
        datasets.gaussian_ring(10, num_modes=2)
    with pytest.raises(ValueError, match="num_arms=0"):
        datasets.spirals(10, num_arms=0)
