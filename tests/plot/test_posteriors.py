"""Pictures of posteriors show the draws, the prior's box and calibration."""

import numpy as np
import pytest
import scipy.stats
from matplotlib.patches import Rectangle

from jaxprob import plot

RNG = np.random.default_rng(0)


def test_a_pair_plot_has_the_box_the_truth_and_both_samples():
    draws = RNG.normal(size=(500, 3)) * [1.0, 2.0, 3.0]
    box = [[-1.5, 1.5], [-np.inf, np.inf], [-4.0, 4.0]]
    figure = plot.pair_plot(
        draws,
        names=["a", "b", "c"],
        box=box,
        truth=[0.5, 0.0, 1.0],
        reference=draws + 1.0,
        title="t",
    )
    axes = np.array(figure.axes).reshape(3, 3)
    assert [ax.get_xlabel() for ax in axes[2]] == ["a", "b", "c"]
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["", "b", "c"]
    lines = [line.get_xydata() for line in axes[2, 0].lines]
    assert any((line[:, 0] == -1.5).all() for line in lines)
    assert any((line[:, 1] == 4.0).all() for line in lines)
    assert any(line.tolist() == [[0.5, 1.0]] for line in lines)
    # Nothing far beyond the prior is drawn.
    assert axes[0, 0].get_xlim()[1] < 1.9
    assert {t.get_text() for t in figure.legends[0].get_texts()} == {
        "posterior",
        "reference",
        "truth",
        "end of the prior",
    }


def test_shades_hold_the_stated_shares():
    from jaxprob.plot._pairs import _smoothed

    draws = RNG.normal(size=(200_000, 2))
    edges = [np.linspace(-5.0, 5.0, 81)] * 2
    count, levels = _smoothed(draws, (0, 1), edges)
    for level, part in zip(levels, (0.95, 0.8, 0.5), strict=True):
        assert abs(count[count > level].sum() / count.sum() - part) < 0.02
    # Of a normal distribution each share is a disc.
    area = np.sum(count > levels[0]) * 0.125**2
    exact = np.pi * scipy.stats.chi2.ppf(0.95, 2)
    assert abs(area / exact - 1.0) < 0.05


def test_rank_histograms_have_the_binomial_band():
    ranks = RNG.integers(100, size=(400, 2))
    figure = plot.rank_histograms(ranks, 99, names=["a", "b"])
    ax = figure.axes[0]
    heights = ax.containers[0].datavalues if ax.containers else None
    if heights is None:
        bars = [p for p in ax.patches if isinstance(p, Rectangle)]
        heights = [bar.get_height() for bar in bars[:20]]
    counts = np.bincount(ranks[:, 0] // 5, minlength=20)
    np.testing.assert_array_equal(np.asarray(heights)[:20], counts)
    band = [p for p in ax.patches if isinstance(p, Rectangle)][-1]
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 400, 0.05)
    assert (band.get_y(), band.get_y() + band.get_height()) == (low, high)


def test_the_band_holds_whole_curves():
    from jaxprob.plot._ranks import _half_width

    grid = np.linspace(0.05, 0.95, 19)
    half = _half_width(100, grid, 0.9)
    shares = np.sort(RNG.uniform(size=(2000, 100)), axis=1)
    curves = np.array([np.searchsorted(row, grid) / 100 for row in shares])
    inside = (np.abs(curves - grid) <= half + 1e-12).all(axis=1).mean()
    assert abs(inside - 0.9) < 0.04


def test_levels_below_the_diagonal_are_of_a_narrow_posterior():
    ax = plot.coverage_of_levels({"narrow": np.linspace(0.5, 1.0, 100)})
    x, y = ax.lines[-1].get_data()
    assert (np.asarray(y) <= np.asarray(x)).all()
    assert y[48] == 0.0  # at the level of 0.49


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plot.pair_plot(np.zeros(3)), r"give \(draws, params\)"),
        (lambda: plot.pair_plot(np.zeros((3, 2)), truth=[1.0]), "truth has shape"),
        (lambda: plot.pair_plot(np.zeros((3, 2)), names=["a"]), "1 names for 2"),
        (lambda: plot.rank_curves(np.array([[4]]), 3), "num_draws=3 they are"),
        (lambda: plot.coverage_of_levels(np.array([1.2])), r"numbers in \[0, 1\]"),
        (
            lambda: plot.posterior_predictive(np.zeros(3), np.zeros((5, 2))),
            r"\(draws, features\)",
        ),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()
