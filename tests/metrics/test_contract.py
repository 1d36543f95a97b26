"""What all metrics share: jit, dtypes, order of rows, errors that name the cause."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxprob import metrics

from ..unhooked import unhooked

RNG = np.random.default_rng(0)
N = 24
Y, MEAN, STD = RNG.normal(size=N), RNG.normal(size=N), np.exp(RNG.normal(size=N))
MEANS, STDS = RNG.normal(size=(3, N)), np.exp(RNG.normal(size=(3, N)))
PROBS, REFERENCE = RNG.dirichlet(np.ones(4), size=(2, N))
MEMBERS = RNG.dirichlet(np.ones(4), size=(3, N))
LABELS = RNG.integers(4, size=N).astype(np.int32)
POINTS, OTHERS = RNG.normal(size=(N, 2)), RNG.normal(size=(N, 2)) + 0.5
KEY = jax.random.key(0)

# name: (function, arrays, the axis of rows of each array)
METRICS = {
    "rmse": (metrics.rmse, (Y, MEAN), (0, 0)),
    "mae": (metrics.mae, (Y, MEAN), (0, 0)),
    "gaussian_nll": (metrics.gaussian_nll, (Y, MEAN, STD), (0, 0, 0)),
    "mixture_nll": (metrics.gaussian_mixture_nll, (Y, MEANS, STDS), (0, 1, 1)),
    "crps_gaussian": (metrics.crps_gaussian, (Y, MEAN, STD), (0, 0, 0)),
    "crps_mixture": (metrics.crps_gaussian_mixture, (Y, MEANS, STDS), (0, 1, 1)),
    "crps_samples": (metrics.crps_samples, (Y, MEANS), (0, 1)),
    "coverage": (metrics.coverage, (Y, MEAN - STD, MEAN + STD), (0, 0, 0)),
    "interval_width": (metrics.interval_width, (MEAN - STD, MEAN + STD), (0, 0)),
    "interval_score": (
        lambda y, low, high: metrics.interval_score(y, low, high, level=0.9),
        (Y, MEAN - STD, MEAN + STD),
        (0, 0, 0),
    ),
    "quantile_calibration": (
        lambda y, m, s: metrics.quantile_calibration_error(
            metrics.pit_gaussian(y, m, s)
        ),
        (Y, MEAN, STD),
        (0, 0, 0),
    ),
    "accuracy": (metrics.accuracy, (LABELS, PROBS), (0, 0)),
    "categorical_nll": (metrics.categorical_nll, (LABELS, np.log(PROBS)), (0, 0)),
    "brier": (metrics.brier, (LABELS, PROBS), (0, 0)),
    "ece": (metrics.ece, (LABELS, PROBS), (0, 0)),
    "adaptive_ece": (metrics.adaptive_ece, (LABELS, PROBS), (0, 0)),
    "aurc": (metrics.aurc, (np.abs(Y), MEAN), (0, 0)),
    "auroc": (metrics.auroc, (Y, MEAN), (0, 0)),
    "fpr_at_tpr": (metrics.fpr_at_tpr, (Y, MEAN), (0, 0)),
    "mutual_information": (
        lambda p: jnp.mean(metrics.mutual_information(p)),
        (MEMBERS,),
        (1,),
    ),
    "agreement": (metrics.agreement, (PROBS, REFERENCE), (0, 0)),
    "total_variation": (metrics.total_variation, (PROBS, REFERENCE), (0, 0)),
    "sliced_wasserstein": (
        lambda x, y: metrics.sliced_wasserstein(x, y, key=KEY, num_projections=9),
        (POINTS, OTHERS),
        (0, 0),
    ),
    "mmd2": (lambda x, y: metrics.mmd2(x, y, bandwidth=1.0), (POINTS, OTHERS), (0, 0)),
    "frechet": (metrics.frechet_distance, (POINTS, OTHERS), (0, 0)),
}
PER_EXAMPLE = [
    "gaussian_nll",
    "mixture_nll",
    "crps_gaussian",
    "crps_mixture",
    "crps_samples",
    "coverage",
    "interval_width",
    "categorical_nll",
    "brier",
    "total_variation",
]


def _single(arrays):
    return [a.astype("f") if a.dtype == np.float64 else a for a in arrays]


@pytest.mark.slow
@pytest.mark.parametrize("name", METRICS)
def test_jitted_metric_is_the_same_scalar_in_any_order_of_rows(name):
    metric, arrays, axes = METRICS[name]
    arrays = _single(arrays)
    value = metric(*arrays)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    jitted = jax.jit(metric)
    np.testing.assert_allclose(jitted(*arrays), value, rtol=2e-5, atol=1e-6)
    order = np.random.default_rng(1).permutation(N)
    mixed = [np.take(a, order, axis) for a, axis in zip(arrays, axes, strict=True)]
    np.testing.assert_allclose(jitted(*mixed), value, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_values_per_example_have_the_scalar_as_their_mean(name):
    metric, arrays, _ = METRICS[name]
    arrays = _single(arrays)
    values = metric(*arrays, per_example=True)
    assert values.shape == (N,)
    np.testing.assert_allclose(
        np.mean(np.asarray(values, float)), metric(*arrays), rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rmse", "crps_gaussian", "ece", "auroc", "frechet"])
def test_double_precision_stays_double(x64, name):
    metric, arrays, _ = METRICS[name]
    value = metric(*arrays)
    assert value.dtype == jnp.float64
    single = metric(*_single(arrays))
    np.testing.assert_allclose(value, single, rtol=1e-4)


def _with(array, index, value):
    array = array.copy()
    array[index] = value
    return array


BAD = {
    "lengths": (lambda: metrics.rmse(Y, MEAN[:-1]), ValueError, r"y \(24,\), mean"),
    "broadcast": (lambda: metrics.rmse(Y, MEAN[:, None]), ValueError, "of one shape"),
    "nan": (
        lambda: metrics.mae(_with(Y, 5, np.nan), MEAN),
        ValueError,
        "y holds.*row 5",
    ),
    "inf": (
        lambda: metrics.auroc(Y, _with(Y, 3, np.nan)),
        ValueError,
        "positive.*row 3",
    ),
    "integers": (lambda: metrics.rmse(LABELS, MEAN), TypeError, "y is int32"),
    "empty": (lambda: metrics.rmse(Y[:0], MEAN[:0]), ValueError, "y is empty"),
    "scale": (
        lambda: metrics.gaussian_nll(Y, MEAN, _with(STD, 2, -1.0)),
        ValueError,
        r"std\[2\] is -1",
    ),
    "components": (
        lambda: metrics.crps_gaussian_mixture(Y, MEANS[:, 1:], STDS[:, 1:]),
        ValueError,
        "means has shape",
    ),
    "weights": (
        lambda: metrics.gaussian_mixture_nll(
            Y, MEANS, STDS, weights=np.array([0.5, 0.5, 0.5])
        ),
        ValueError,
        "weights.*sums to 1.5",
    ),
    "one sample": (
        lambda: metrics.crps_samples(Y, MEANS[:1]),
        ValueError,
        "two or more",
    ),
    "label": (
        lambda: metrics.brier(_with(LABELS, 7, 4), PROBS),
        ValueError,
        "labels row 7 is 4, outside the classes 0, ..., 3",
    ),
    "float labels": (
        lambda: metrics.accuracy(LABELS.astype(float), PROBS),
        TypeError,
        "labels is float",
    ),
    "label count": (
        lambda: metrics.accuracy(LABELS[:-1], PROBS),
        ValueError,
        "labels has 23, probs has 24",
    ),
    "logits": (
        lambda: metrics.ece(LABELS, np.log(PROBS)),
        ValueError,
        r"probs\[0, 0\] is -.*softmax\(probs\)",
    ),
    "sum": (
        lambda: metrics.entropy(_with(PROBS, 3, 0.9)),
        ValueError,
        r"probs\[3\] sums to 3.6",
    ),
    "log sum": (
        lambda: metrics.categorical_nll(LABELS, PROBS),
        ValueError,
        "log_probs row 0.*log_softmax",
    ),
    "axes": (lambda: metrics.entropy(PROBS[0]), ValueError, r"\(rows, classes\)"),
    "crossed": (
        lambda: metrics.coverage(Y, MEAN + STD, MEAN - STD),
        ValueError,
        r"lower\[0\].*above upper",
    ),
    "level": (
        lambda: metrics.interval_score(Y, MEAN - STD, MEAN, level=90.0),
        ValueError,
        "level=90",
    ),
    "pit": (
        lambda: metrics.quantile_calibration_error(_with(Y, 0, 2.0)),
        ValueError,
        r"outside \[0, 1\]",
    ),
    "dimensions": (
        lambda: metrics.mmd2(POINTS, OTHERS[:, :1], bandwidth=1.0),
        ValueError,
        r"shape \(2,\) and points of y \(1,\)",
    ),
    "bandwidth": (
        lambda: metrics.mmd2(POINTS, OTHERS, bandwidth=0.0),
        ValueError,
        "bandwidth",
    ),
    "one point": (
        lambda: metrics.frechet_distance(POINTS[:1], OTHERS),
        ValueError,
        r"at least 2 point",
    ),
    "folds": (lambda: metrics.c2st(POINTS[:4], OTHERS), ValueError, "at least 5"),
    "one value": (lambda: metrics.mean_and_error(Y[:1]), ValueError, "two or more"),
    "order": (lambda: metrics.wasserstein_1d(Y, MEAN, p=0.5), ValueError, r"p=0\.5"),
    "rate": (lambda: metrics.fpr_at_tpr(Y, MEAN, tpr=95.0), ValueError, "tpr=95"),
    "bins": (lambda: metrics.ece(LABELS, PROBS, num_bins=0), ValueError, "num_bins=0"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named(name):
    call, error, match = BAD[name]
    with unhooked(), pytest.raises(error, match=match):
        call()
