"""Checks of posteriors, of the exact one and of wrong ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from jaxprob import metrics


def exact(num, seed=0):
    """Pairs of theta ~ N(0, 1), x = theta + N(0, 1), and exact draws given x."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(num, 1))
    x = theta + rng.normal(size=(num, 1))
    return theta, x, x / 2.0 + rng.normal(size=(num, 1)) / np.sqrt(2.0)


class Quadratic(LogisticRegression):
    """Logistic regression on squares and products: the family of this problem."""

    def fit(self, x, y):
        return super().fit(self._features(x), y)

    def predict_proba(self, x):
        return super().predict_proba(self._features(x))

    def _features(self, x):
        return np.hstack([x, x**2, x[:, :1] * x[:, 1:]])


def local(shift, at, seed=0, num_null=19):
    """The posterior is shifted where x > 0 alone."""
    theta, x, draws = exact(2000, seed)
    draws = draws + shift * (x > 0.0)
    rng = np.random.default_rng(seed + 1)
    there = at / 2.0 + shift * (at > 0.0) + rng.normal(size=(500, 1)) / np.sqrt(2.0)
    return metrics.local_c2st(
        theta,
        draws,
        x,
        np.array([at]),
        there,
        num_null=num_null,
        classifier=Quadratic(),
        seed=seed,
    )


def test_local_c2st_accepts_the_exact_posterior():
    p_values = [local(0.0, 1.0, seed=seed, num_null=9).p_value for seed in range(6)]
    assert np.mean(p_values) > 0.25
    assert max(p_values) > 0.5


def test_local_c2st_is_local():
    wrong, right = local(0.6, 2.0), local(0.6, -2.0)
    assert wrong.p_value == 1 / 20
    assert wrong.statistic > 3.0 * right.statistic


@pytest.mark.slow
def test_the_default_classifier_finds_a_wide_posterior():
    theta, x, draws = exact(1500)
    draws = x / 2.0 + 2.0 * (draws - x / 2.0)
    there = 2.0 * draws[:200] - 2.0 * x[:200] / 2.0
    found = metrics.local_c2st(theta, draws, x, np.zeros(1), there, num_null=9)
    assert found.p_value == 0.1


def test_local_c2st_rejects_shapes_that_do_not_fit():
    theta, x, draws = exact(30)
    with pytest.raises(ValueError, match=r"observed \(features,\)"):
        metrics.local_c2st(theta, draws, x, np.zeros(2), draws)
    with pytest.raises(ValueError, match="draws has an entry that is not finite"):
        metrics.local_c2st(theta, draws * np.nan, x, np.zeros(1), draws)


def test_any_function_that_draws_is_checked(getkey):
    @jax.jit
    def draw(key, x):
        noise = jax.random.normal(key, (99, 2)) / np.sqrt(2.0)
        return {"b": x["y"] / 2.0 + noise[:, 1], "a": x["z"] / 2.0 + noise[:, 0]}

    rng = np.random.default_rng(0)
    theta = rng.normal(size=(200, 2))
    x = theta + rng.normal(size=(200, 2))
    tree = {"z": x[:, 0], "y": x[:, 1]}
    draws = metrics.draws_for_each(draw, tree, key=getkey())
    assert draws.shape == (99, 200, 2)
    truth = metrics.parameter_matrix({"a": theta[:, 0], "b": theta[:, 1]})
    ranks = metrics.posterior_ranks(truth, draws)
    assert min(metrics.rank_p_values(column, 99)[1] for column in ranks.T) > 1e-3
    swapped = metrics.posterior_ranks(truth[:, ::-1], draws)
    assert metrics.rank_p_values(swapped[:, 0], 99)[1] < 1e-3


def test_draws_of_one_number_for_each_observation_are_required(getkey):
    with pytest.raises(ValueError, match="the same number"):
        metrics.draws_for_each(
            lambda key, x: jnp.zeros((int(x), 1)), np.array([1, 2]), key=getkey()
        )


def test_levels_of_highest_density_are_uniform_for_the_exact_posterior():
    theta, x, _ = exact(2000)
    rng = np.random.default_rng(1)
    draws = x.T / 2.0 + rng.normal(size=(200, 2000)) / np.sqrt(2.0)
    levels = metrics.density_levels(
        -((theta[:, 0] - x[:, 0] / 2.0) ** 2), -((draws - x[:, 0] / 2.0) ** 2)
    )
    for level in (0.1, 0.5, 0.9):
        error = np.sqrt(level * (1.0 - level) / 2000)
        assert abs(np.mean(levels < level) - level) < 4.0 * error + 0.005


def test_predictive_check_has_uniform_p_values_on_new_data():
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0.0], [0.95, 0.3]])
    found = []
    for _ in range(400):
        rows = rng.normal(size=(101, 2)) @ root.T
        found.append(metrics.predictive_check(rows[0], rows[1:]))
    for values in (
        np.array([check.p_value for check in found]),
        np.array([check.entries[0] for check in found]),
    ):
        assert abs(np.mean(values < 0.2) - 0.2) < 4.0 * 0.02
        assert abs(np.mean(values < 0.5) - 0.5) < 4.0 * 0.025


def test_predictive_check_sees_what_no_entry_shows():
    rng = np.random.default_rng(0)
    root = np.array([[1.0, 0.0], [0.95, 0.3]])
    rows = rng.normal(size=(400, 2)) @ root.T
    check = metrics.predictive_check(np.array([1.5, -1.5]), rows)
    assert check.entries.min() > 0.05
    assert check.p_value < 0.01
