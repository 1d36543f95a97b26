"""Scores of classes against scikit-learn, torchmetrics, closed forms and by hand."""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from jaxprob import metrics

RNG = np.random.default_rng(0)
N, C = 300, 4
PROBS = RNG.dirichlet(0.5 * np.ones(C), size=N)
LABELS = np.array([RNG.choice(C, p=p**0.5 / sum(p**0.5)) for p in PROBS])


@pytest.mark.slow
def test_scores_are_scikit_learns(x64):
    expected = sklearn.metrics.accuracy_score(LABELS, PROBS.argmax(1))
    np.testing.assert_allclose(metrics.accuracy(LABELS, PROBS), expected)
    nll = metrics.categorical_nll(LABELS, np.log(PROBS))
    np.testing.assert_allclose(nll, sklearn.metrics.log_loss(LABELS, PROBS), rtol=1e-9)
    whole: Any = False
    expected = sklearn.metrics.brier_score_loss(LABELS, PROBS, scale_by_half=whole)
    np.testing.assert_allclose(metrics.brier(LABELS, PROBS), expected, rtol=1e-12)


def test_two_class_brier_is_twice_the_half_score(x64):
    p = RNG.uniform(size=N)
    labels = RNG.integers(2, size=N)
    half = sklearn.metrics.brier_score_loss(labels, p)
    full = metrics.brier(labels, np.stack([1 - p, p], axis=1))
    np.testing.assert_allclose(full, 2 * half, rtol=1e-12)


@pytest.mark.slow
def test_impossible_label_costs_infinity():
    log_probs = np.log(np.array([[1.0, 1e-30]]))
    log_probs[0, 1] = -np.inf
    assert metrics.categorical_nll(np.array([1]), log_probs.astype("f")) == np.inf
    assert metrics.categorical_nll(np.array([0]), log_probs.astype("f")) == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("num_bins", [1, 5, 15])
def test_ece_is_torchmetrics(x64, num_bins):
    torch = pytest.importorskip("torch")
    tm = pytest.importorskip("torchmetrics.functional.classification")
    ours = metrics.ece(LABELS, PROBS, num_bins=num_bins)
    theirs = tm.multiclass_calibration_error(
        torch.tensor(PROBS), torch.tensor(LABELS), C, n_bins=num_bins, norm="l1"
    )
    np.testing.assert_allclose(ours, theirs.item(), rtol=1e-5)  # float32 inside


def _ece_by_loop(confidence, correct, groups):
    return sum(
        len(g) / len(confidence) * abs(confidence[g].mean() - correct[g].mean())
        for g in groups
        if len(g)
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_bins", [1, 7, 15, 400])
def test_ece_is_the_loop_over_bins(x64, num_bins):
    confidence, correct = PROBS.max(1), PROBS.argmax(1) == LABELS
    edges = np.linspace(0, 1, num_bins + 1)
    equal_width = [
        np.flatnonzero((confidence > low) & (confidence <= high))
        for low, high in itertools.pairwise(edges)
    ]
    expected = _ece_by_loop(confidence, correct, equal_width)
    ours = metrics.ece(LABELS, PROBS, num_bins=num_bins)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)
    curve = metrics.reliability_curve(LABELS, PROBS, num_bins=num_bins)
    assert curve.count.tolist() == [len(g) for g in equal_width]


@pytest.mark.parametrize("num_bins", [1, 7, 15, 400])
def test_adaptive_bins_are_even_and_ordered(x64, num_bins):
    confidence, correct = PROBS.max(1), PROBS.argmax(1) == LABELS
    order = np.argsort(confidence, kind="stable")
    curve = metrics.reliability_curve(LABELS, PROBS, num_bins=num_bins, adaptive=True)
    count = np.asarray(curve.count)
    assert count.sum() == N
    assert count.max() - count.min() <= 1
    groups = np.split(order, np.cumsum(count)[:-1])
    expected = _ece_by_loop(confidence, correct, groups)
    ours = metrics.adaptive_ece(LABELS, PROBS, num_bins=num_bins)
    np.testing.assert_allclose(ours, expected, rtol=1e-10)


def test_confidence_on_an_edge_belongs_to_the_bin_below(x64):
    probs = np.array([[0.5, 0.5], [1.0, 0.0], [0.75, 0.25]])
    curve = metrics.reliability_curve(np.zeros(3, int), probs, num_bins=4)
    assert curve.count.tolist() == [0, 1, 1, 1]


@pytest.mark.slow
def test_calibration_error_of_a_calibrated_model_vanishes(x64):
    rng = np.random.default_rng(1)
    for n in (1000, 100_000):
        p = rng.uniform(size=n)
        labels = (rng.uniform(size=n) < p).astype(int)
        probs = np.stack([1 - p, p], axis=1)
        # Each of five bins (confidence starts at 1/2) is off by .4 / sqrt(n/5) times
        # |z|, whose mean is .8 and whose standard deviation is .6.
        error = 0.4 / np.sqrt(n / 5)
        assert metrics.ece(labels, probs, num_bins=10) < error * (
            0.8 + 5 * 0.6 / np.sqrt(5)
        )
        sharpened = probs**2 / (probs**2).sum(1, keepdims=True)
        assert metrics.ece(labels, sharpened, num_bins=10) > 0.05


@pytest.mark.slow
def test_overconfidence_is_measured_exactly(x64):
    # Always 90 % sure, right in 6 of 10.
    probs = np.tile([0.9, 0.1], (10, 1))
    labels = np.array([0] * 6 + [1] * 4)
    for error in (metrics.ece, metrics.adaptive_ece):
        np.testing.assert_allclose(error(labels, probs, num_bins=1), 0.3, rtol=1e-12)


@pytest.mark.slow
def test_entropies_and_mutual_information(x64):
    members = np.random.default_rng(2).dirichlet(np.ones(C), size=(6, N))
    mean = members.mean(0)
    total = -(mean * np.log(mean)).sum(1)
    aleatoric = -(members * np.log(members)).sum(2).mean(0)
    np.testing.assert_allclose(metrics.entropy(mean), total, rtol=1e-12)
    mi = metrics.mutual_information(members)
    np.testing.assert_allclose(mi, total - aleatoric, rtol=1e-10)
    # The same number, as the mean divergence of the members from their mixture.
    divergence = (members * np.log(members / mean)).sum(2).mean(0)
    np.testing.assert_allclose(mi, divergence, rtol=1e-10)


@pytest.mark.slow
def test_extremes_of_uncertainty(x64):
    certain, even = np.eye(3), np.full((3, 3), 1 / 3)
    np.testing.assert_array_equal(metrics.entropy(certain), 0.0)
    np.testing.assert_allclose(metrics.entropy(even), np.log(3))
    np.testing.assert_allclose(metrics.max_probability_uncertainty(even), 2 / 3)
    disagree = np.stack([certain, np.roll(certain, 1, 1), np.roll(certain, 2, 1)])
    np.testing.assert_allclose(metrics.mutual_information(disagree), np.log(3))
    agree = np.stack([even, even])
    np.testing.assert_allclose(metrics.mutual_information(agree), 0.0, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learns(x64, ties):
    rng = np.random.default_rng(3)
    negative, positive = rng.normal(size=200), rng.normal(size=150) + 0.8
    if ties:
        negative, positive = np.round(negative), np.round(positive)
    labels = np.repeat([0, 1], [200, 150])
    scores = np.concatenate([negative, positive])
    ours = metrics.auroc(negative, positive)
    np.testing.assert_allclose(ours, sklearn.metrics.roc_auc_score(labels, scores))
    np.testing.assert_allclose(ours + metrics.auroc(positive, negative), 1.0)
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    for rate in (0.5, 0.8, 0.95, 1.0):
        ours = metrics.fpr_at_tpr(negative, positive, tpr=rate)
        np.testing.assert_allclose(ours, fpr[np.argmax(tpr >= rate - 1e-12)])


def test_ranking_of_infinite_scores():
    low, high = np.array([-np.inf, 0.0], "f"), np.array([1.0, np.inf], "f")
    assert metrics.auroc(low, high) == 1.0
    assert metrics.fpr_at_tpr(low, high) == 0.0


@pytest.mark.slow
def test_risk_coverage_by_loop(x64):
    rng = np.random.default_rng(4)
    loss, uncertainty = rng.uniform(size=30), rng.normal(size=30)
    order = np.argsort(uncertainty)
    risks = [loss[order[:k]].mean() for k in range(1, 31)]
    curve = metrics.risk_coverage(loss, uncertainty)
    np.testing.assert_allclose(curve.risk, risks, rtol=1e-12)
    np.testing.assert_allclose(curve.coverage, np.arange(1, 31) / 30)
    np.testing.assert_allclose(metrics.aurc(loss, uncertainty), np.mean(risks))


@pytest.mark.slow
def test_risk_coverage_of_ties_is_the_mean_over_their_orders(x64):
    rng = np.random.default_rng(5)
    loss, uncertainty = rng.uniform(size=12), rng.integers(3, size=12).astype(float)
    ours = metrics.risk_coverage(loss, uncertainty).risk
    draws = []
    for _ in range(20_000):
        order = np.lexsort((rng.uniform(size=12), uncertainty))
        draws.append(np.cumsum(loss[order]) / np.arange(1, 13))
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    assert (np.abs(np.mean(draws, axis=0) - ours) <= 5 * error + 1e-12).all()


@pytest.mark.slow
def test_aurc_between_its_bounds(x64):
    rng = np.random.default_rng(6)
    loss = (rng.uniform(size=500) < 0.2).astype(float)
    blind = metrics.aurc(loss, np.zeros(500))
    np.testing.assert_allclose(blind, loss.mean())
    best, worst = metrics.aurc(loss, loss), metrics.aurc(loss, -loss)
    useful = metrics.aurc(loss, loss + rng.normal(size=500))
    assert best < useful < blind < worst
    # Perfect order: no risk until the wrong ones come, then k_wrong / k.
    right = int((1 - loss).sum())
    expected = sum((k - right) / k for k in range(right + 1, 501)) / 500
    np.testing.assert_allclose(best, expected)


def test_fidelity_by_hand(x64):
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    q = np.array([[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
    np.testing.assert_allclose(metrics.agreement(p, q), 0.5)
    each = metrics.total_variation(p, q, per_example=True)
    np.testing.assert_allclose(each, [0.1, 0.3])
    np.testing.assert_allclose(metrics.total_variation(p, q), 0.2)
    np.testing.assert_allclose(
        metrics.total_variation(np.eye(3), np.eye(3)[::-1]), 2 / 3
    )


@pytest.mark.slow
def test_masses_of_classes_are_kept_in_half_precision():
    probs = jnp.asarray(PROBS).astype(jnp.bfloat16)
    out = metrics.brier(LABELS, probs)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, metrics.brier(LABELS, PROBS), rtol=2e-2)
