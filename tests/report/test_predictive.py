"""The figures of a page are those of the metrics, and verdicts those of known cases."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from jaxprob import bnn, datasets, metrics
from jaxprob.report import predictive_report

from .page import check

ROWS, MODELS = 400, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 3)).astype(np.float32)
SLOPE = np.array([1.0, -2.0, 0.5], np.float32)


def linear_rows(noise=0.5):
    return (X @ SLOPE + noise * RNG.normal(size=ROWS)).astype(np.float32)


def mixture(likelihood, centre, spread=0.1):
    """Return a predictive whose models are shifted by a known deviation."""
    shift = np.linspace(-1, 1, MODELS).astype(np.float32)
    shift = spread * shift / shift.std()
    outputs = np.asarray(centre)[:, None] + shift
    return bnn.Predictive(jnp.asarray(outputs), likelihood)


@pytest.fixture(scope="module")
def regression():
    y = linear_rows()
    predictive = mixture(bnn.NormalLikelihood(0.5), X @ SLOPE)
    train = (X, linear_rows())
    return y, predictive, train


def value(cell):
    return float(cell.split(" ± ")[0])


@pytest.mark.slow
def test_scores_are_those_of_the_metrics(regression):
    y, predictive, train = regression
    page = check(predictive_report(predictive, y, x=X, train=train).html)
    nll, plain, gain, linear, other = page.row("NLL, nats")
    assert value(nll) == pytest.approx(-float(predictive.log_prob(y).mean()), rel=1e-3)
    mean, std = train[1].mean(), train[1].std(ddof=1)
    marginal = float(
        metrics.gaussian_nll(y, np.full_like(y, mean), np.full_like(y, std))
    )
    assert value(plain) == pytest.approx(marginal, rel=1e-3)
    assert value(gain) == pytest.approx(value(plain) - value(nll), abs=2e-3)
    # The data are linear: the regression is as good as the true function.
    assert value(linear) == pytest.approx(value(nll), abs=0.05)
    assert abs(value(other)) < 0.05
    rmse = page.row("RMSE")
    assert value(rmse[0]) == pytest.approx(
        float(metrics.rmse(y, predictive.mean)), rel=1e-3
    )
    crps = metrics.crps_gaussian(y, predictive.mean, predictive.std)
    assert value(page.row("CRPS")[0]) == pytest.approx(float(crps), rel=0.02)
    score = metrics.interval_score(y, *predictive.interval(0.9), level=0.9)
    assert value(page.row("interval score, 90 %")[0]) == pytest.approx(
        float(score), rel=1e-3
    )


def test_a_gain_has_the_error_of_paired_rows(regression):
    y, predictive, train = regression
    page = check(predictive_report(predictive, y, x=X, train=train).html)
    _, _, gain, *_ = page.row("NLL, nats")
    losses = -np.asarray(predictive.log_prob(y), np.float64)
    mean, std = train[1].mean(), train[1].std(ddof=1)
    others = -np.asarray(dist.Normal(mean, std).log_prob(y), np.float64)
    paired = (others - losses).std(ddof=1) / np.sqrt(ROWS)
    assert float(gain.split(" ± ")[1]) == pytest.approx(paired, rel=0.06)


def test_scaled_targets_are_shown_in_the_units_of_y(regression):
    y, predictive, _ = regression
    scaler = datasets.Standardizer(np.asarray(100.0), np.asarray(10.0))
    plain = check(predictive_report(predictive, y).html)
    scaled = check(predictive_report(predictive, y, y_scaler=scaler).html)
    for name in ("RMSE", "MAE", "CRPS"):
        assert value(scaled.row(name)[0]) == pytest.approx(
            10.0 * value(plain.row(name)[0]), rel=1e-3
        )
    assert value(scaled.row("NLL, nats")[0]) == pytest.approx(
        value(plain.row("NLL, nats")[0]) + np.log(10.0), abs=1e-3
    )
    assert scaled.row("90%")[0] == plain.row("90%")[0]


@pytest.mark.parametrize(
    ("scale", "verdict"), [(0.1, "too narrow"), (0.5, "as stated"), (2.0, "too wide")]
)
def test_verdicts_of_intervals(scale, verdict):
    y = linear_rows()
    predictive = mixture(bnn.NormalLikelihood(scale), X @ SLOPE, spread=0.01)
    page = check(predictive_report(predictive, y).html)
    assert page.row("80%")[-1] == verdict


def test_the_worst_row_is_the_planted_one(regression):
    y, predictive, _ = regression
    y = y.copy()
    y[37] += 20.0
    page = check(predictive_report(predictive, y, x=X, names=("a", "b", "c")).html)
    head = page.words[page.words.index("log-density") :].splitlines()
    assert head[0].split(" | ")[-2:] == ["c", ""] or "c" in head[0]
    assert head[1].split(" | ")[0] == "37"
    assert float(head[1].split(" | ")[5]) == pytest.approx(
        20.0 / float(predictive.std[37]), rel=0.2
    )
    assert head[1].split(" | ")[6] == f"{X[37, 0]:.4g}"


def test_the_share_of_epistemic_variance():
    y = linear_rows()
    predictive = mixture(bnn.NormalLikelihood(0.5), X @ SLOPE, spread=0.5)
    page = check(predictive_report(predictive, y).html)
    assert "50% of the predicted variance is epistemic" in page.words


def test_missing_targets_are_left_out(regression):
    y, predictive, _ = regression
    seen = np.arange(ROWS) % 2 == 0
    page = check(predictive_report(predictive, (np.where(seen, y, 1e3), seen)).html)
    mean = np.asarray(predictive.mean)
    assert value(page.row("RMSE")[0]) == pytest.approx(
        np.sqrt(np.mean((y - mean)[seen] ** 2)), rel=1e-3
    )


@pytest.fixture(scope="module")
def classes():
    logits = 3.0 * RNG.normal(size=(ROWS, 3)).astype(np.float32)
    labels = np.asarray(jax.random.categorical(jax.random.key(0), jnp.asarray(logits)))
    outputs = logits[:, None] + 0.3 * RNG.normal(size=(ROWS, MODELS, 3)).astype("f")
    return (
        labels,
        bnn.Predictive(jnp.asarray(outputs), bnn.CategoricalLikelihood()),
        logits,
    )


@pytest.mark.slow
def test_scores_of_classes(classes):
    labels, predictive, logits = classes
    train = (logits, labels)
    names = ("ant", "bee", "<cat>")
    page = check(
        predictive_report(
            predictive, labels, x=logits, train=train, class_names=names
        ).html
    )
    nll, plain, _, linear, _ = page.row("NLL, nats")
    assert value(nll) == pytest.approx(
        -float(predictive.log_prob(labels).mean()), rel=1e-3
    )
    count = np.bincount(labels) + 1.0
    frequencies = np.log(count / count.sum())[labels]
    assert value(plain) == pytest.approx(-frequencies.mean(), rel=1e-3)
    assert value(linear) == pytest.approx(value(nll), abs=0.06)  # logits are linear
    brier = metrics.brier(labels, predictive.probs)
    assert value(page.row("Brier score")[0]) == pytest.approx(float(brier), rel=1e-3)
    error = 1.0 - float(metrics.accuracy(labels, predictive.probs))
    assert value(page.row("error rate")[0]) == pytest.approx(error, rel=1e-3)
    recall = float(page.row("<cat>")[1])
    called = np.asarray(predictive.probs).argmax(axis=1)
    assert recall == pytest.approx((called[labels == 2] == 2).mean(), rel=1e-3)
    assert "agree within chance" in page.words


def test_a_wrong_label_is_the_worst_row(classes):
    labels, predictive, _ = classes
    labels = labels.copy()
    row = int(np.asarray(predictive.probs).max(axis=1).argmax())
    wrong = (labels[row] + 1) % 3
    labels[row] = wrong
    page = check(predictive_report(predictive, labels).html)
    table = page.words[page.words.index("its probability") :].splitlines()
    assert table[1].split(" | ")[:2] == [str(row), str(wrong)]


@pytest.mark.slow
def test_binary_and_calibrated_classes():
    logits = RNG.normal(size=ROWS).astype(np.float32)
    labels = (RNG.uniform(size=ROWS) < 1 / (1 + np.exp(-logits))).astype(np.int32)
    predictive = mixture(bnn.BernoulliLikelihood(), 3.0 * logits)
    page = check(predictive_report(predictive, labels).html)
    assert "too certain" in page.words
    half = ROWS // 2
    parts = [
        mixture(bnn.BernoulliLikelihood(), 3.0 * logits[rows])
        for rows in (slice(half), slice(half, None))
    ]
    calibrated = bnn.calibrate(parts[1], parts[0], labels[:half])
    page = check(predictive_report(calibrated, labels[half:]).html)
    assert "agree within chance" in page.words
    assert page.row("rescaled on held-out rows by")


@pytest.mark.slow
def test_counts_angles_and_several_targets():
    rate = np.exp(0.3 * X[:, 0])
    counts = RNG.poisson(rate)
    poisson = mixture(lambda out: dist.Poisson(jnp.exp(out)), 0.3 * X[:, 0])
    page = check(predictive_report(poisson, counts, train=(X, counts), x=X).html)
    assert page.row("NLL, nats")[1] == "-"  # a density is no probability
    assert page.row("90%")[-1] in ("as stated", "at least as stated")
    circle = mixture(
        lambda out: dist.VonMises(out, 4.0), np.full(ROWS, 3.1, np.float32)
    )
    angles = np.asarray(
        dist.VonMises(3.1, 4.0).sample(jax.random.key(1), (ROWS,)), np.float32
    )
    page = check(predictive_report(circle, angles).html)
    # Angles on both sides of pi: the plain difference has an RMSE of about 3.
    assert value(page.row("RMSE")[0]) < 0.8
    line = mixture(bnn.NormalLikelihood(0.5), X @ SLOPE)
    both = bnn.Predictive(
        {"a": poisson.outputs, "b": line.outputs},
        bnn.JointLikelihood({"a": poisson.likelihood, "b": line.likelihood}),
    )
    page = check(predictive_report(both, {"a": counts, "b": linear_rows()}).html)
    assert "a: Scores" in page.words
    assert "b: Calibration" in page.words


def test_errors_name_the_argument(regression, classes):
    y, predictive, _ = regression
    with pytest.raises(ValueError, match="x has 3 rows and the predictive 400"):
        predictive_report(predictive, y, x=X[:3])
    labels, predictive, _ = classes
    with pytest.raises(ValueError, match="class_names has 2 names"):
        predictive_report(predictive, labels, class_names=("a", "b"))
