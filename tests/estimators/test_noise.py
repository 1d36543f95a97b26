"""The settings of the noise in `fit` and `predict`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxprob
from jaxprob import bnn
from jaxprob.estimators import (
    BNNClassifier,
    BNNRegressor,
    _compiled,
    _statistics as statistics,
)

pytestmark = pytest.mark.slow


def line(rows=300):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 2)), rng


def linear(**settings):
    settings = {"hidden": (), "num_steps": 600, "random_state": 0, **settings}
    return BNNRegressor("map", **settings)


def test_a_logarithm_has_the_mean_of_a_log_normal():
    X, rng = line()
    y = np.exp(X[:, 0] + 0.5 * rng.normal(size=300))
    model = linear(target="log", noise="constant").fit(X, y)
    at = np.asarray([[1.0, 0.0]])
    # 300 rows: five standard errors of the mean of log y are .15.
    np.testing.assert_allclose(model.predict(at), np.exp(1.0 + 0.125), rtol=0.2)
    np.testing.assert_allclose(model.predict(at, quantiles=[0.5]), np.e, rtol=0.2)
    log_prob = model.predict_dist(X).log_prob(y).mean()
    truth = dist.LogNormal(X[:, 0], 0.5).log_prob(y).mean()
    assert abs(log_prob - truth) < 0.05
    with pytest.raises(ValueError, match="mean of y would be infinite"):
        linear(target="log", noise="student").fit(X, y)


@pytest.mark.parametrize("noise", ["student", "mixed"])
def test_heavy_tails_ignore_outliers(noise, tmp_path):
    X, rng = line()
    y = X[:, 0] + 0.1 * rng.normal(size=300)
    y[::15] += 40.0
    robust = linear(noise=noise).fit(X, y)
    at = np.zeros((1, 2))
    assert linear(noise="constant").fit(X, y).predict(at)[0] > 1.0
    if noise == "student":
        assert abs(robust.predict(at)[0]) < 0.3
    else:
        mixture: Any = robust.posterior_
        assert int(mixture.components[0].model.df) == 4
        assert int(mixture.components[1].model.df) == 10_000
    jaxprob.save(tmp_path / "model.safetensors", robust)
    loaded = jaxprob.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.predict(X), robust.predict(X))


@pytest.mark.parametrize("noise", ["poisson", "negative_binomial"])
def test_counts(noise):
    X, rng = line()
    y = rng.poisson(np.exp(3.0 + 0.5 * X[:, 0]))
    model = linear(noise=noise).fit(X, y)
    at = np.asarray([[1.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(model.predict(at), np.exp([3.5, 2.5]), rtol=0.15)
    lower, upper = model.predict_interval(X, 0.9)
    assert (lower == np.round(lower)).all()
    assert np.mean((lower <= y) & (y <= upper)) > 0.85
    with pytest.raises(ValueError, match="counts are not transformed"):
        linear(noise=noise, target="log").fit(X, y)
    calibrated = linear(noise=noise, calibrate=0.3).fit(X, y)
    lower, upper = calibrated.predict_interval(X, 0.9)
    assert np.mean((lower <= y) & (y <= upper)) > 0.8


def laplace(output):
    return dist.Laplace(output[:1], 1e-3 + jax.nn.softplus(output[1:]))


def test_a_likelihood_of_ones_own():
    X, rng = line()
    y = 1.0 + X[:, 0] + rng.laplace(size=300)
    model = linear(likelihood=laplace, num_outputs=2).fit(X, y)
    predictive = model.predict_dist(X)
    assert abs(predictive.log_prob(y).mean() + 1.0 + np.log(2.0)) < 0.2
    np.testing.assert_allclose(model.predict(np.zeros((1, 2))), 1.0, atol=0.4)
    with pytest.raises(ValueError, match=r"shape \(0,\).*give num_outputs="):
        linear(likelihood=lambda f: dist.Normal(f[2:], 1.0)).fit(X, y)


def test_intervals_pass_through_pipelines_and_transformers():
    X, rng = line(120)
    y = np.exp(X[:, 0] + 0.3 * rng.normal(size=120))
    inner = make_pipeline(StandardScaler(), linear(noise="constant", num_steps=200))
    outer = TransformedTargetRegressor(inner, func=np.log, inverse_func=np.exp)
    outer.fit(X, y)
    quantiles = outer.predict(X, quantiles=[0.1, 0.5, 0.9])
    ends = outer.predict(X, return_interval=0.8)
    np.testing.assert_allclose(ends, quantiles[:, [0, 2]], rtol=1e-6)
    model: Any = outer.regressor_
    plain = model.predict(X, quantiles=[0.5])
    np.testing.assert_allclose(quantiles[:, 1:2], np.exp(plain))
    with pytest.raises(ValueError, match="give one of them"):
        model[-1].predict(X, return_std=True, quantiles=[0.5])


def test_conformal_intervals_cover_and_stay_wide_where_noise_is():
    """One group of four has four times the noise, which a single level cannot see."""
    rng = np.random.default_rng(0)
    group = rng.integers(4, size=1600)
    X = np.stack([rng.normal(size=1600), group == 0], axis=1).astype(float)
    y = X[:, 0] + np.where(group == 0, 4.0, 1.0) * rng.normal(size=1600)
    model = linear(calibrate=0.4, num_steps=400).fit(X[:800], y[:800])
    lower, upper = model.predict_interval(X[800:], 0.9)
    inside = (lower <= y[800:]) & (y[800:] <= upper)
    # 320 held-out rows and 800 new ones, 200 in the group: five standard errors.
    assert abs(inside.mean() - 0.9) < 5 * np.sqrt(0.09 / 320 + 0.09 / 800)
    assert inside[group[800:] == 0].mean() > 0.9 - 5 * np.sqrt(0.09 / 320 + 0.09 / 200)
    width = upper - lower
    ratio = width[group[800:] == 0].mean() / width[group[800:] != 0].mean()
    assert abs(ratio / 4.0 - 1.0) < 0.4
    for share, match in ((1.5, "between 0 and 1"), (1e-4, "holds 0 of 800 rows out")):
        with pytest.raises(ValueError, match=match):
            linear(calibrate=share).fit(X[:800], y[:800])


def test_programs_are_kept_and_agree_with_predict(caplog):
    X, _ = line(100)
    model = BNNRegressor("mean_field_vi", hidden=(), num_steps=20, random_state=0)
    model.fit(X, X[:, 0])
    fitted = model._fitted
    mean, parts = fitted.ask(statistics.moments, X)
    expected = bnn.predict(
        fitted.posterior,
        fitted.likelihood,
        jnp.asarray(fitted.scaler(X), jnp.float32),
        key=fitted.key,
    )
    np.testing.assert_allclose(mean, expected.mean, atol=1e-6)
    np.testing.assert_allclose(parts[:, 0], expected.epistemic, rtol=1e-4)
    np.testing.assert_allclose(parts[:, 1], expected.aleatoric, rtol=1e-5)
    for rows in (1, 5, 30, 65):
        np.testing.assert_array_equal(model.predict(X[:rows]), model.predict(X)[:rows])
    with jax.log_compiles():
        caplog.clear()
        model.predict(X[:3])
    assert not [m for m in caplog.messages if "ompil" in m or "racing" in m]
    assert fitted in _compiled._kept
    assert "programs" not in str(model.__getstate__()).lower()


def test_class_weights_multiply_the_weights_of_rows():
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], [180, 20])
    X = rng.normal(size=(200, 1))
    settings = {"hidden": (), "num_steps": 100, "random_state": 0}

    def probs(class_weight, sample_weight=None):
        model = BNNClassifier("map", class_weight=class_weight, **settings)
        return model.fit(X, labels, sample_weight=sample_weight).predict_proba(X)

    balanced = bnn.class_weights(labels)
    np.testing.assert_allclose(probs("balanced"), probs(None, balanced), atol=1e-6)
    halves = np.full(200, 0.5)
    by_row = np.where(labels == "a", 0.5, 1.0)
    found = probs({"a": 1.0, "b": 2.0}, halves)
    np.testing.assert_allclose(found, probs(None, by_row), atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("stage", ["networks", "chains"])
def test_an_interrupted_fit_keeps_the_networks(stage, monkeypatch):
    X, _ = line(60)
    train = __import__("jaxprob.estimators._train", fromlist=["bnn"])
    if stage == "networks":
        real = train.fit_learner

        def stop(method, model, data, **settings):
            state, history = real(method, model, data, **settings)
            error = KeyboardInterrupt()
            vars(error).update(state=state, step=7, history=history)
            raise error

        monkeypatch.setattr(train, "fit_learner", stop)
        match = "interrupted after 7 of 10 training steps"
    else:

        def interrupt(*args, **settings):
            raise KeyboardInterrupt

        monkeypatch.setattr(bnn, "run_chains", interrupt)
        match = "posterior is the ensemble"
    model = BNNRegressor("chains", hidden=(), num_steps=10, random_state=0)
    with pytest.warns(UserWarning, match=match):
        model.fit(X, X[:, 0])
    assert model.posterior_.num_atoms == 10
    assert np.isfinite(model.predict(X)).all()
