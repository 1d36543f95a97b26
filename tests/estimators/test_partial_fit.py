"""`partial_fit` is Bayes' rule on the last layers, in any order and batches."""

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from jaxprob.estimators import BNNClassifier, BNNRegressor

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)) * np.array([1.0, 10.0, 0.1])
Y = 5.0 + 2.0 * X[:, 0] + 0.1 * X[:, 1] + 0.5 * RNG.normal(size=60)
LABELS = np.where(X[:, 0] > 0, "yes", "no")


@pytest.fixture(scope="module")
def linear():
    """A linear model, whose posterior is that of Bayesian linear regression."""
    model = BNNRegressor(
        "map", noise="constant", hidden=(), num_steps=20, random_state=0
    )
    return model.partial_fit(X[:30], Y[:30])


def fresh(model) -> Any:
    """The same estimator, not fitted."""
    return clone(model)


def closed_form(model, rows):
    """Mean and variance of the function, in units of y, by NumPy."""
    posterior = model.posterior_.components[0]
    network = posterior.mean()
    noise = 1e-3 + float(np.logaddexp(0.0, network.raw_scale[0]))
    scaler, units = model._fitted.scaler, model._target
    design = np.concatenate([scaler(X[rows]), np.ones((len(rows), 1))], axis=1)
    z = units(Y[rows][:, None])[:, 0]
    tau = np.array([3.0 / np.sqrt(3)] * 3 + [3.0]) ** -2
    precision = np.diag(tau) + design.T @ design / noise**2
    mean = np.linalg.solve(precision, design.T @ z / noise**2)
    return mean, np.linalg.inv(precision), noise


def weights(model):
    network = model.posterior_.components[0].mean().model
    return np.append(np.ravel(network.weight), network.bias)


def test_the_first_rows_give_the_exact_posterior_of_the_last_layer(linear):
    mean, covariance, _ = closed_form(linear, np.arange(30))
    assert np.allclose(weights(linear), mean, atol=1e-4)
    found = linear.posterior_.components[0].precision
    assert np.allclose(np.linalg.inv(found), covariance, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_stream_gives_the_posterior_of_all_rows(linear):
    rows = np.arange(60)
    for order in ([rows[30:]], [rows[45:], rows[30:37], rows[37:45]]):
        model = pickle.loads(pickle.dumps(linear))
        for some in order:
            model.partial_fit(X[some], Y[some])
        mean, _, noise = closed_form(model, np.arange(60))
        assert np.allclose(weights(model), mean, atol=1e-4)
        epistemic, aleatoric = model.predict_variances(X[:5])
        scale = np.std(Y[:30])
        assert np.allclose(aleatoric, (noise * scale) ** 2, rtol=0.02)
        assert np.all(epistemic < aleatoric)


def test_after_fit_its_rows_are_the_first_call(linear):
    again = fresh(linear).fit(X[:30], Y[:30]).partial_fit(X[30:], Y[30:])
    whole = fresh(linear).partial_fit(X[:30], Y[:30]).partial_fit(X[30:], Y[30:])
    assert np.array_equal(again.predict(X), whole.predict(X))
    labels = BNNClassifier("map", num_steps=20, hidden=(), random_state=0)
    again = fresh(labels).fit(X[:30], LABELS[:30]).partial_fit(X[30:], LABELS[30:])
    whole = fresh(labels).partial_fit(X[:30], LABELS[:30])
    whole.partial_fit(X[30:], LABELS[30:])
    assert np.array_equal(again.predict_proba(X), whole.predict_proba(X))


def test_a_partial_fit_that_raises_leaves_what_was_fitted(linear):
    fitted = fresh(linear).set_params(calibrate=0.2).fit(X[:30], Y[:30])
    before = fitted.predict(X)
    with pytest.raises(ValueError, match=r"calibrate=0\.2: the scores"):
        fitted.partial_fit(X[30:], Y[30:])
    assert np.array_equal(fitted.predict(X), before)
    fitted.set_params(calibrate=None).partial_fit(X[30:], Y[30:])


@pytest.mark.slow
def test_networks_and_classes_are_updated():
    small = {"hidden": (16,), "random_state": 0}
    model = BNNRegressor(effort="fast", num_steps=400, **small)
    model.partial_fit(X[:30], Y[:30])
    noise = np.mean(model.predict_variances(X[30:])[1])
    first: Any = model.posterior_
    model.partial_fit(X[30:], Y[30:])
    assert abs(np.mean(model.predict_variances(X[30:])[1]) / noise - 1.0) < 0.1
    second: Any = model.posterior_
    for old, new in zip(first.components, second.components, strict=True):
        gained = np.linalg.eigvalsh(new.precision - old.precision)
        assert gained.min() > -1e-6 * np.abs(new.precision).max()
        assert np.trace(new.precision) > np.trace(old.precision) + 1.0
    assert model.score(X[30:], Y[30:]) > 0.8
    assert model.method == "auto"
    labels = BNNClassifier("map", num_steps=100, **small)
    labels.partial_fit(X[:30], LABELS[:30], classes=["yes", "no", "maybe"])
    labels.partial_fit(X[30:], LABELS[30:])
    assert labels.score(X, LABELS) > 0.9
    assert labels.predict_proba(X).shape == (60, 3)
    with pytest.raises(ValueError, match="row 0 of y is 'other'"):
        labels.partial_fit(X[:1], ["other"])


def test_wrong_calls_are_named(linear):
    with pytest.raises(ValueError, match="method='laplace': partial_fit updates"):
        BNNRegressor("laplace").partial_fit(X, Y)
    with pytest.raises(ValueError, match=r"calibrate=0\.2: the scores"):
        BNNRegressor(calibrate=0.2).partial_fit(X, Y)
    with pytest.raises(ValueError, match="y has 2 columns"):
        linear.partial_fit(X, np.stack([Y, Y], axis=1))
    with pytest.raises(ValueError, match="X has 2 features"):
        linear.partial_fit(X[:, :2], Y)
    fitted = pickle.loads(pickle.dumps(fresh(linear).fit(X[:30], Y[:30])))
    with pytest.raises(ValueError, match="a file has no training rows"):
        fitted.partial_fit(X, Y)
    one = BNNClassifier("map")
    with pytest.raises(ValueError, match="the first rows hold one class"):
        one.partial_fit(X[:3], ["a"] * 3)
