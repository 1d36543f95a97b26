"""The method "diffusion" of the regressor."""

import numpy as np
import pytest
from scipy.stats import norm

from jaxprob.estimators import BNNClassifier, BNNRegressor


def two_modes(num=300):
    """y = 100 +- 10 + N(0, 2), whatever x is."""
    rng = np.random.default_rng(0)
    sign = rng.choice([-1.0, 1.0], num)
    return rng.normal(size=(num, 2)), 100 + 10 * sign + 2 * rng.normal(size=num)


@pytest.fixture(scope="module")
def model():
    X, y = two_modes()
    return BNNRegressor("diffusion", effort="fast", num_steps=400, random_state=0).fit(
        X, y
    )


@pytest.mark.slow
def test_a_density_of_two_modes_is_in_the_units_of_y(model):
    X, y = two_modes(40)
    p = model.predict_dist(X)
    true = np.log(norm.pdf(y[:, None], [90.0, 110.0], 2.0).mean(1))
    # A Gaussian of this mean and spread has 1.0 nats less.
    assert abs((true - p.log_prob(y)).mean()) < 0.4
    assert np.all(p.log_prob(np.full(40, 100.0)) < true.mean() - 2.0)
    assert abs(p.mean.mean() - 100.0) < 2.0
    assert abs(p.std.mean() / np.sqrt(104.0) - 1.0) < 0.15
    lower, upper = model.predict_interval(X, 0.8)
    np.testing.assert_allclose(p.cdf(upper) - p.cdf(lower), 0.8, atol=1e-3)
    assert p.epistemic.shape == (40,)
    np.testing.assert_array_equal(model.predict(X)[:7], model.predict(X[:7]))
    np.testing.assert_array_equal(p.mean, model.predict(X))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": "student"}, "noise='student' with method='diffusion'"),
        ({"hidden": (8,)}, "leave hidden out"),
        ({"network": lambda *a, key: None}, "leave network out"),
        ({"target": "log"}, "target='log'"),
    ],
)
def test_settings_of_other_methods_are_rejected(settings, message):
    X, y = two_modes(30)
    with pytest.raises(ValueError, match=message):
        BNNRegressor("diffusion", **settings).fit(X, y)


def test_weights_columns_updates_and_classes_are_rejected():
    X, y = two_modes(30)
    model = BNNRegressor("diffusion")
    with pytest.raises(ValueError, match="repeat rows"):
        model.fit(X, y, sample_weight=np.ones(30))
    with pytest.raises(ValueError, match="y has 2 columns"):
        model.fit(X, np.stack([y, y], 1))
    with pytest.raises(ValueError, match="method='diffusion'"):
        model.partial_fit(X, y)
    with pytest.raises(ValueError, match="method='diffusion'"):
        BNNClassifier("diffusion").fit(X, (y > 100.0).astype(int))
