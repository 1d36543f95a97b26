"""The scikit-learn estimators: its own checks, and what the numbers mean."""

from typing import Any

import jax
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

from jaxprob import bnn
from jaxprob.estimators import BNNClassifier, BNNRegressor

SMALL = {"hidden": (16,), "random_state": 0}


def expected_failures(estimator):
    """Weights and repeated rows have one posterior, and other numbers of updates."""
    reason = "the number of updates and the standardisation depend on the rows"
    kinds = "dense", "sparse"
    return {f"check_sample_weight_equivalence_on_{k}_data": reason for k in kinds}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:y has two values", "ignore:columns of X are const")
@parametrize_with_checks(
    [
        BNNRegressor("map", noise="constant", num_steps=200, **SMALL),
        BNNClassifier("map", num_steps=100, **SMALL),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def regression():
    X, y = load_diabetes(return_X_y=True)
    model = BNNRegressor(
        "mean_field_vi", noise="constant", hidden=(20,), prior_scale=2.0,
        num_steps=1650, batch_size=32, random_state=0,
    )  # fmt: skip
    return model.fit(X[:350], y[:350]), X[350:], y[350:]


@pytest.mark.slow
def test_predictions_are_in_the_units_of_y(regression):
    model, X, y = regression
    mean, std = model.predict(X, return_std=True)
    assert model.score(X, y) > 0.35
    # The residuals are as large as the model says, within five standard errors.
    z = (y - mean) / std
    assert abs(np.mean(z**2) - 1) < 5 * np.std(z**2) / np.sqrt(len(y))
    epistemic, aleatoric = model.predict_variances(X)
    np.testing.assert_allclose(epistemic + aleatoric, std**2, rtol=1e-3)
    lower, upper = model.predict_interval(X, level=0.9)
    inside = ((lower <= y) & (y <= upper)).mean()
    assert abs(inside - 0.9) < 5 * np.sqrt(0.09 / len(y))


@pytest.mark.slow
def test_the_epistemic_variance_of_one_network_is_zero():
    X, y = load_diabetes(return_X_y=True)
    model = BNNRegressor("map", num_steps=20, **SMALL).fit(X, y)
    epistemic, aleatoric = model.predict_variances(X[:5])
    np.testing.assert_array_equal(epistemic, 0.0)
    assert (aleatoric > 1.0).all()


@pytest.mark.slow
def test_a_prediction_does_not_depend_on_its_neighbours(regression):
    model, X, _ = regression
    np.testing.assert_array_equal(model.predict(X)[:7], model.predict(X[:7]))


@pytest.mark.slow
def test_several_targets_have_their_own_units():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 3))
    y = np.stack([X[:, 0], 1000.0 * X[:, 1]], axis=1)
    y += rng.normal(size=y.shape) * [0.1, 100.0]
    model = BNNRegressor("map", hidden=(), num_steps=800, random_state=0).fit(X, y)
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == (120, 2)
    # A standard deviation of 120 rows: five standard errors are a third.
    np.testing.assert_allclose(std.mean(0), [0.1, 100.0], rtol=5 / np.sqrt(2 * 120))
    assert model.score(X, y) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ensemble", "laplace"])
def test_classes_keep_their_names_and_probabilities_are_calibrated(method):
    X, y = load_breast_cancer(return_X_y=True)
    names = np.asarray(["malignant", "benign"])[y]
    model = BNNClassifier(
        method, hidden=(10,), prior_scale=2.0, num_steps=390, batch_size=32,
        random_state=0,
    )  # fmt: skip
    model.fit(X[:400], names[:400])
    assert set(model.predict(X[400:])) == {"malignant", "benign"}
    assert model.score(X[400:], names[400:]) > 0.93
    probs = model.predict_proba(X[400:])
    assert (model.classes_ == ["benign", "malignant"]).all()
    own = probs[np.arange(len(probs)), (names[400:] == "malignant").astype(int)]
    # .16 over seeds, with a spread of .02; the share of the classes alone has .66.
    assert -np.log(own).mean() < 0.3
    total, epistemic = model.predict_entropy(X[400:])
    assert (epistemic <= total + 1e-6).all()
    assert epistemic.mean() > 0


@pytest.mark.slow
def test_it_goes_into_pipelines_and_searches():
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:150], y[:150]
    model = BNNRegressor("map", hidden=(8,), num_steps=60, random_state=0)
    scores = cross_val_score(make_pipeline(StandardScaler(), model), X, y, cv=2)
    assert scores.shape == (2,)
    search = GridSearchCV(model, {"prior_scale": [0.1, 2.0]}, cv=2).fit(X, y)
    assert search.best_params_["prior_scale"] in (0.1, 2.0)
    copy: Any = clone(model)
    assert copy.get_params() == model.get_params()


@pytest.mark.slow
def test_a_method_of_ones_own():
    X, y = load_diabetes(return_X_y=True)

    def chain(log_joint, num_steps):
        start = num_steps // 2
        return bnn.SGLD(
            log_joint, 1e-4, num_warmup=start, thin=10, num_draws=20, random=True
        )

    model = BNNRegressor(
        chain, noise="constant", hidden=(8,), num_steps=210, batch_size=32,
        random_state=0,
    )  # fmt: skip
    model.fit(X[:200], y[:200])
    assert model.posterior_.num_atoms == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"method": "magic"}, "method='magic'"),
        ({"num_steps": 0}, "num_steps=0"),
        ({"effort": "heroic"}, "effort='heroic'"),
        ({"noise": "loud"}, "noise='loud'"),
        ({"learning_rate": 0.0}, "learning_rate=0"),
        ({"hidden": (8, 9)}, "hidden="),
    ],
)
def test_bad_settings_are_named(settings, match):
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(ValueError, match=match):
        BNNRegressor(**{"num_steps": 1, **settings}).fit(X[:20], y[:20])


@pytest.mark.slow
def test_one_class_is_refused():
    with pytest.raises(ValueError, match="one class"):
        BNNClassifier().fit(np.arange(4.0)[:, None], np.zeros(4, int))


@pytest.mark.slow
def test_the_folds_of_a_cross_validation_share_what_is_compiled(caplog):
    X, y = load_diabetes(return_X_y=True)
    model = BNNRegressor("mean_field_vi", num_steps=20, **SMALL)

    def compiled(score):
        caplog.clear()
        with jax.log_compiles():
            score()
        return [m for m in caplog.messages if m.startswith("Finished XLA compilation")]

    assert compiled(lambda: cross_val_score(model, X[:400], y[:400], cv=4))
    assert not compiled(lambda: cross_val_score(model, X[40:440], y[40:440], cv=4))


@pytest.mark.slow
def test_an_offset_changes_nothing():
    """Offsets that leave single precision no digit: they are undone in double."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    y = X[:, 0] + 0.1 * rng.normal(size=40)
    settings = {"method": "map", "hidden": (), "num_steps": 6, "random_state": 0}
    plain = BNNRegressor(**settings).fit(X, y)
    moved = BNNRegressor(**settings).fit(X + 2.0**27, y + 2.0**30)
    for found, expected in (
        (moved.predict(X + 2.0**27), plain.predict(X)),
        (moved.predict_interval(X + 2.0**27), plain.predict_interval(X)),
    ):
        np.testing.assert_allclose(np.asarray(found) - 2.0**30, expected, atol=1e-5)


@pytest.mark.slow
def test_rows_without_weight_change_nothing():
    """Two lines, of which one has no weight: the prediction is the other."""
    x = np.linspace(-1.0, 1.0, 40)[:, None]
    X, y = np.concatenate([x, x]), np.concatenate([2.0 * x[:, 0], -2.0 * x[:, 0]])
    weight = np.repeat([1.0, 0.0], 40)
    model = BNNRegressor("map", hidden=(), num_steps=800, random_state=0)
    fitted = model.fit(X, y, sample_weight=weight)
    assert fitted.score(X, y, sample_weight=weight) > 0.98
    other = model.fit(X, y, sample_weight=1.0 - weight)
    np.testing.assert_allclose(other.predict(X), -2.0 * X[:, 0], atol=0.25)


@pytest.mark.slow
def test_balanced_classes_move_the_boundary():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [380, 20])
    X = rng.normal(size=(400, 1)) + 2.0 * labels[:, None]
    weight = bnn.class_weights(labels)
    np.testing.assert_allclose(weight, compute_sample_weight("balanced", labels))
    model = BNNClassifier("map", hidden=(), num_steps=500, random_state=0)
    plain = model.fit(X, labels).predict_proba([[1.0]])[0, 1]
    balanced = model.fit(X, labels, sample_weight=weight).predict_proba([[1.0]])[0, 1]
    # Halfway between two equally frequent classes of equal spread.
    assert plain < 0.2
    assert abs(balanced - 0.5) < 0.15
