"""Weights of metrics are repeated rows; scores of ordered classes."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scoringrules

from jaxprob import metrics

from .test_contract import METRICS, N

WEIGHTED = {
    "rmse": {},
    "mae": {},
    "gaussian_nll": {},
    "gaussian_mixture_nll": {},
    "crps_gaussian": {},
    "crps_gaussian_mixture": {},
    "crps_samples": {},
    "coverage": {},
    "interval_width": {},
    "interval_score": {"level": 0.9},
    "accuracy": {},
    "categorical_nll": {},
    "brier": {},
    "ranked_probability_score": {},
    "angular_error": {},
}
ARRAYS = {
    "gaussian_mixture_nll": "mixture_nll",
    "crps_gaussian_mixture": "crps_mixture",
    "ranked_probability_score": "brier",
    "angular_error": "rmse",
}
WEIGHT = np.random.default_rng(3).integers(0, 4, N)


def test_the_table_has_every_metric_with_weights():
    taking = {
        name
        for name, value in vars(metrics).items()
        if inspect.isfunction(value)
        and "sample_weight" in inspect.signature(value).parameters
    }
    assert taking == set(WEIGHTED)


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTED)
def test_a_weight_of_two_is_the_row_twice(name: str):
    metric, settings = getattr(metrics, name), WEIGHTED[name]
    _, arrays, axes = METRICS[ARRAYS.get(name, name)]
    arrays = [a.astype("f") if a.dtype == np.float64 else a for a in arrays]
    found = metric(*arrays, **settings, sample_weight=WEIGHT)
    repeated = [
        np.repeat(a, WEIGHT, axis) for a, axis in zip(arrays, axes, strict=True)
    ]
    np.testing.assert_allclose(found, metric(*repeated, **settings), rtol=1e-5)
    jitted = jax.jit(lambda w: metric(*arrays, **settings, sample_weight=w))
    np.testing.assert_allclose(jitted(WEIGHT), found, rtol=1e-5)


def test_missing_elements_do_not_count():
    y, mean = np.array([[1.0, 9.0], [2.0, 4.0]]), np.zeros((2, 2))
    observed = np.array([[True, False], [True, True]])
    found = metrics.rmse(y, mean, sample_weight=observed)
    np.testing.assert_allclose(found, np.sqrt((1 + 4 + 16) / 3), rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones((2, 1)), r"sample_weight has shape \(2, 1\) and the values \(3,\)"),
        (np.array([1.0, -1.0, 0.0]), r"sample_weight\[1\] is -1\.0"),
        (np.zeros(3), "zero everywhere"),
    ],
)
def test_wrong_weights_are_rejected(weight, message):
    with pytest.raises(ValueError, match=message):
        metrics.rmse(np.ones(3), np.zeros(3), sample_weight=weight)
    with pytest.raises(ValueError, match="leave one of them out"):
        metrics.brier(
            np.zeros(1, np.int32),
            np.ones((1, 1)),
            per_example=True,
            sample_weight=np.ones(1),
        )


def test_the_ranked_probability_score_is_scoringrules():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(5), size=7).astype(np.float32)
    labels = rng.integers(0, 5, 7).astype(np.int32)
    found = metrics.ranked_probability_score(labels, probs, per_example=True)
    expected = scoringrules.rps_score(labels + 1, probs)  # its categories start at 1
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_distant_class_costs_more_than_a_near_one():
    labels = np.array([0], np.int32)
    near, far = jnp.array([[0.0, 1.0, 0.0]]), jnp.array([[0.0, 0.0, 1.0]])
    assert metrics.ranked_probability_score(labels, near) == 1.0
    assert metrics.ranked_probability_score(labels, far) == 2.0
    two = jnp.array([[0.3, 0.7]])
    half = metrics.brier(labels, two) / 2
    np.testing.assert_allclose(metrics.ranked_probability_score(labels, two), half)
