"""Two-sample figures against SciPy, matrices, assignment problems and closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.stats
from sklearn.linear_model import LogisticRegression

from jaxprob import metrics


def _points(num, dim=3, seed=0, shift=0.0):
    return np.random.default_rng(seed).normal(size=(num, dim)) + shift


@pytest.mark.parametrize(("n", "m"), [(1, 1), (7, 7), (7, 5), (6, 4), (1, 9), (64, 63)])
def test_wasserstein_1d_is_scipys(x64, n, m):
    x, y = _points(n, 1)[:, 0], _points(m, 1, seed=1, shift=0.3)[:, 0]
    expected = scipy.stats.wasserstein_distance(x, y)
    np.testing.assert_allclose(metrics.wasserstein_1d(x, y), expected, rtol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_wasserstein_1d_solves_the_assignment(x64, p):
    x, y = _points(9, 1)[:, 0], _points(9, 1, seed=1)[:, 0] * 2
    cost = np.abs(x[:, None] - y[None]) ** p
    expected = cost[scipy.optimize.linear_sum_assignment(cost)].mean() ** (1 / p)
    np.testing.assert_allclose(metrics.wasserstein_1d(x, y, p=p), expected, rtol=1e-12)


def test_wasserstein_1d_of_unequal_sizes_is_that_of_repeated_points(x64):
    x, y = _points(4, 1)[:, 0], _points(6, 1, seed=1)[:, 0]
    repeated = metrics.wasserstein_1d(np.repeat(x, 3), np.repeat(y, 2), p=2.0)
    np.testing.assert_allclose(
        metrics.wasserstein_1d(x, y, p=2.0), repeated, rtol=1e-12
    )


def test_wasserstein_of_many_points_does_not_overflow():
    # 70,000 x 60,000 is more than 32 bits hold.
    x = np.linspace(0, 1, 70_000, dtype="f")
    y = np.linspace(0, 1, 60_000, dtype="f") + np.float32(0.5)
    np.testing.assert_allclose(metrics.wasserstein_1d(x, y), 0.5, rtol=1e-4)


def test_sliced_wasserstein_of_a_shift_is_known(x64, getkey):
    # |u . s|^2 over directions u: its mean is |s|^2 / d.
    x, shift = _points(50, 4), np.array([3.0, 0.0, -4.0, 0.0])
    distance = metrics.sliced_wasserstein(
        x, x + shift, key=getkey(), num_projections=4000
    )
    # |u.s|^2 / |s|^2 is Beta(1/2, 3/2), of standard deviation 1/4.
    error = 25 * 0.25 / np.sqrt(4000)
    assert abs(float(distance) ** 2 - 25 / 4) < 5 * error


def test_sliced_wasserstein_on_the_line_is_exact(x64, getkey):
    x, y = _points(30, 1), _points(20, 1, seed=1)
    sliced = metrics.sliced_wasserstein(x, y, key=getkey(), num_projections=3)
    expected = metrics.wasserstein_1d(x[:, 0], y[:, 0], p=2.0)
    np.testing.assert_allclose(sliced, expected, rtol=1e-12)


def test_sliced_wasserstein_is_the_mean_over_directions(x64, getkey):
    key = getkey()
    x, y = _points(30, 3), _points(30, 3, seed=1, shift=1.0)
    normal = np.asarray(jax.random.normal(key, (7, 3)))
    powers = []
    for u in normal / np.linalg.norm(normal, axis=1, keepdims=True):
        powers.append(np.mean((np.sort(x @ u) - np.sort(y @ u)) ** 2))
    ours = metrics.sliced_wasserstein(x, y, key=key, num_projections=7)
    np.testing.assert_allclose(ours, np.sqrt(np.mean(powers)), rtol=1e-12)


def _kernel(a, b, bandwidth):
    squared = scipy.spatial.distance.cdist(a, b, "sqeuclidean")
    return np.exp(-squared / (2 * bandwidth**2))


@pytest.mark.parametrize("batch_size", [1, 7, 256])
def test_mmd_is_its_u_statistic(x64, batch_size):
    x, y, h = _points(20), _points(15, seed=1, shift=0.5), 1.3
    kxx, kyy, kxy = _kernel(x, x, h), _kernel(y, y, h), _kernel(x, y, h)
    expected = (
        kxx[~np.eye(20, dtype=bool)].mean()
        + kyy[~np.eye(15, dtype=bool)].mean()
        - 2 * kxy.mean()
    )
    ours = metrics.mmd2(x, y, bandwidth=h, batch_size=batch_size)
    np.testing.assert_allclose(ours, expected, rtol=1e-9)


def test_mmd_is_unbiased_on_gaussians(x64):
    # E exp(-|a-b|^2 / (2 h^2)) for a - b ~ N(m, 2 I) in d dimensions.
    h, shift, dim, repeats = 1.5, 0.8, 2, 400

    def expected_kernel(m):
        scale = h**2 / (h**2 + 2)
        return scale ** (dim / 2) * np.exp(-(m**2) / (2 * (h**2 + 2)))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(repeats, 10, dim))
    y = rng.normal(size=(repeats, 8, dim)) + np.array([shift, 0.0])
    mmd2 = jax.jit(jax.vmap(lambda x, y: metrics.mmd2(x, y, bandwidth=h)))
    for second, truth in (
        (y, 2 * expected_kernel(0.0) - 2 * expected_kernel(shift)),
        (y - np.array([shift, 0.0]), 0.0),
    ):
        values = np.asarray(mmd2(x, second))
        error = values.std() / np.sqrt(repeats)
        assert abs(values.mean() - truth) < 5 * error
        # Leaving the ones on the diagonal in would add 1/10 + 1/8, nearly.
        assert error < 0.02


def test_median_bandwidth_is_the_median_distance(x64):
    x, y = _points(12), _points(9, seed=1)
    expected = np.median(scipy.spatial.distance.pdist(np.concatenate([x, y])))
    np.testing.assert_allclose(metrics.median_bandwidth(x, y), expected)


def _frechet_by_sqrtm(m1, c1, m2, c2):
    root: Any = scipy.linalg.sqrtm(c1 @ c2)
    return np.sum((m1 - m2) ** 2) + np.trace(c1 + c2 - 2 * root.real)


def test_frechet_is_the_textbook_formula(x64):
    x, y = _points(60, 5) @ np.diag([1, 2, 3, 4, 5.0]), _points(80, 5, seed=1, shift=1)
    expected = _frechet_by_sqrtm(x.mean(0), np.cov(x.T), y.mean(0), np.cov(y.T))
    np.testing.assert_allclose(metrics.frechet_distance(x, y), expected, rtol=1e-9)
    np.testing.assert_allclose(
        metrics.frechet_distance(x, y), metrics.frechet_distance(y, x), rtol=1e-9
    )


def test_frechet_of_commuting_covariances_is_closed_form(x64):
    a, b = np.array([1.0, 4.0, 0.0]), np.array([9.0, 1.0, 2.0])
    zero = np.zeros(3)
    distance = metrics.frechet_gaussian(zero, np.diag(a), zero + 1, np.diag(b))
    np.testing.assert_allclose(distance, 3 + np.sum((a**0.5 - b**0.5) ** 2), rtol=1e-12)


@pytest.mark.slow
def test_frechet_of_fewer_points_than_features_is_stable():
    x = _points(10, 40).astype("f")
    assert 0 <= metrics.frechet_distance(x, x) < 1e-4
    shifted = metrics.frechet_distance(x, x + 1)
    np.testing.assert_allclose(shifted, 40.0, rtol=1e-5)
    mean, cov = x.mean(0), np.cov(x.T).astype("f")
    shifted = metrics.frechet_gaussian(mean, cov, mean + 1, cov)
    np.testing.assert_allclose(shifted, 40.0, rtol=1e-5)


@pytest.mark.slow
def test_c2st_knows_chance_and_a_shift():
    x, y = _points(400, 2).astype("f"), _points(400, 2, seed=1).astype("f")
    # Folds share rows, so a bit more than 1 / sqrt(8 n).
    assert abs(metrics.c2st(x, y) - 0.5) < 5 * 1.2 / np.sqrt(8 * 400)
    far = metrics.c2st(x, y + np.float32(2.0), classifier=LogisticRegression())
    # The best possible: Phi(|shift| / 2), shift = (2, 2).
    best = scipy.stats.norm.cdf(np.sqrt(2))
    assert abs(far - best) < 5 * np.sqrt(best * (1 - best) / 800)


def test_c2st_of_unequal_sizes_has_chance_one_half():
    x, y = _points(100, 2).astype("f"), _points(1000, 2, seed=1).astype("f")
    # Without cutting, calling everything "y" would score 10/11.
    value = metrics.c2st(x, y, classifier=LogisticRegression())
    assert abs(value - 0.5) < 5 * 1.2 / np.sqrt(8 * 100)


@pytest.mark.slow
def test_c2st_is_repeatable():
    x, y = _points(60, 2).astype("f"), _points(60, 2, seed=1, shift=1).astype("f")
    assert metrics.c2st(x, y, seed=3) == metrics.c2st(x, y, seed=3)


def test_precision_recall_density_coverage_by_loop(x64):
    samples, real, k = _points(25), _points(30, seed=1, shift=0.7), 3

    def radius(points):
        distances = scipy.spatial.distance.cdist(points, points)
        return np.sort(distances, axis=1)[:, k]

    d = scipy.spatial.distance.cdist(real, samples)
    in_real = d <= radius(real)[:, None]
    in_samples = d <= radius(samples)[None]
    scores = metrics.precision_recall_density_coverage(samples, real, num_neighbours=k)
    np.testing.assert_allclose(scores.precision, np.mean(in_real.any(0)))
    np.testing.assert_allclose(scores.recall, np.mean(in_samples.any(1)))
    np.testing.assert_allclose(scores.density, in_real.sum() / (k * 25))
    np.testing.assert_allclose(scores.coverage, np.mean(in_real.any(1)))


def test_collapse_is_low_recall_and_junk_is_low_precision():
    real = _points(200, 2).astype("f")
    # Round one real point, far closer than its neighbours are.
    collapsed = real[:1] + (0.01 * _points(200, 2, seed=1)).astype("f")
    scores = metrics.precision_recall_density_coverage(collapsed, real)
    assert scores.precision > 0.95
    assert scores.recall < 0.1
    assert scores.coverage < 0.2
    wide = (6.0 * _points(200, 2, seed=1)).astype("f")
    scores = metrics.precision_recall_density_coverage(wide, real)
    assert scores.precision < 0.4  # .16 over seeds, with a spread of .03
    assert scores.recall > 0.8


@pytest.mark.slow
def test_every_distance_sees_the_shift_and_images_are_flattened(getkey):
    key = getkey()
    x = _points(80, 16).reshape(80, 4, 4).astype("f")
    same = _points(80, 16, seed=1).reshape(80, 4, 4).astype("f")
    distances = {
        "sliced": lambda a, b: metrics.sliced_wasserstein(a, b, key=key),
        "mmd": lambda a, b: metrics.mmd2(a, b, bandwidth=4.0),
        "frechet": metrics.frechet_distance,
    }
    for distance in distances.values():
        assert distance(x, same) < 0.5 * distance(x, same + jnp.float32(1.0))
