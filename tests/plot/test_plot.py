"""Pictures show the numbers given, on the axes given, and touch nothing else."""

import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxprob import metrics, plot

RNG = np.random.default_rng(0)
X = RNG.permutation(np.linspace(-1.0, 2.0, 50))
MEAN, STD, INNER = np.sin(X), 0.3 + 0 * X, 0.1 + 0 * X
PROBS = RNG.dirichlet(np.ones(4), size=200).astype("f")
LABELS = RNG.integers(4, size=200)
CURVE = metrics.reliability_curve(LABELS, PROBS, num_bins=10)
RISK = metrics.risk_coverage(RNG.uniform(size=30), RNG.uniform(size=30))
GRID = plot.plane_grid((-1.0, 1.0), num_points=12)

ON_AXES = {
    "band": lambda ax: plot.predictive_band(
        X, MEAN, STD, epistemic=INNER**2, data=(X, MEAN), title="t", ax=ax
    ),
    "quantiles": lambda ax: plot.quantile_band(
        X, MEAN + np.array([[-1.0], [0], [1]]), [0.1, 0.5, 0.9], data=(X, MEAN), ax=ax
    ),
    "prior": lambda ax: plot.prior_draws(X, RNG.normal(size=(8, 50)), ax=ax),
    "map": lambda ax: plot.epistemic_map(
        GRID, GRID[:, 0] ** 2, data=GRID[:9], classes=np.arange(9) % 2, ax=ax
    ),
    "paths": lambda ax: plot.trajectories(
        RNG.normal(size=(5, 7, 2)), data=GRID, title="t", ax=ax
    ),
    "paths on the line": lambda ax: plot.trajectories(RNG.normal(size=(5, 7)), ax=ax),
    "reliability": lambda ax: plot.reliability_diagram(CURVE, title="t", ax=ax),
    "pit": lambda ax: plot.pit_histogram(RNG.uniform(size=99), title="t", ax=ax),
    "coverage": lambda ax: plot.coverage_curve(RNG.uniform(size=99), title="t", ax=ax),
    "outcomes": lambda ax: plot.predicted_against_actual(
        MEAN, MEAN, STD, title="t", ax=ax
    ),
    "ranks": lambda ax: plot.rank_curves(
        RNG.integers(20, size=(99, 2)), 19, title="t", ax=ax
    ),
    "levels": lambda ax: plot.coverage_of_levels(
        RNG.uniform(size=99), title="t", ax=ax
    ),
    "predictive": lambda ax: plot.posterior_predictive(
        MEAN, MEAN + RNG.normal(size=(40, 50)), at=X, title="t", ax=ax
    ),
    "risk": lambda ax: plot.risk_coverage_curves({"a": RISK, "b": RISK}, ax=ax),
}


@pytest.mark.slow
def test_importing_pictures_touches_no_global_state_and_jaxprob_imports_none():
    code = (
        "import sys, jaxprob; assert 'matplotlib' not in sys.modules; "
        "import jaxprob.plot; assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ON_AXES)
def test_a_picture_is_drawn_on_new_axes_or_on_those_given(name, tmp_path):
    new = ON_AXES[name](None)
    assert isinstance(new, Axes)
    assert new.get_xlabel()
    assert new.get_ylabel()
    assert isinstance(new.figure, Figure)
    new.figure.savefig(tmp_path / "picture.png")
    given = Figure().add_subplot()
    assert ON_AXES[name](given) is given
    assert "matplotlib.pyplot" not in sys.modules or not _open_figures()


def _open_figures():
    return sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("name", ON_AXES)
def test_legend_and_title_do_not_overlap(name):
    ax = ON_AXES[name](None)
    figure, legend = ax.figure, ax.get_legend()
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    if ax.get_title() and legend is not None:
        title = ax.title.get_window_extent()
        assert not legend.get_window_extent().overlaps(title)


def test_bands_have_the_widths_given():
    ax = plot.predictive_band(X, MEAN, STD, epistemic=INNER**2, num_std=3.0)
    widths = []
    for band in ax.collections[:2]:
        vertices: Any = band.get_paths()[0].vertices
        at = vertices[np.isclose(vertices[:, 0], X[7])][:, 1]
        widths.append(np.ptp(at))
    np.testing.assert_allclose(widths, [6 * 0.3, 6 * 0.1], rtol=1e-6)
    line: Any = ax.lines[0].get_xydata()
    assert (np.diff(line[:, 0]) > 0).all()  # sorted, though x was not
    np.testing.assert_allclose(line[:, 1], np.sin(line[:, 0]))


def test_pit_bars_and_band_are_those_of_the_binomial():
    pit = RNG.beta(0.7, 0.7, size=1000)
    ax = plot.pit_histogram(pit, num_bins=10)
    heights = [bar.get_height() for bar in ax.containers[0]]
    density, _ = np.histogram(pit, bins=10, range=(0, 1), density=True)
    np.testing.assert_allclose(heights, density)
    band: Any = ax.patches[0]
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 1000, 0.1) / 100
    np.testing.assert_allclose(
        [band.get_y(), band.get_y() + band.get_height()], [low, high]
    )
    # Bars beyond the band stand out, and only they.
    colours = [bar.get_facecolor() for bar in ax.containers[0]]
    outside = [not low <= height <= high for height in heights]
    assert outside[0]
    assert outside[-1]
    assert not all(outside)
    assert [colour == colours[0] for colour in colours] == outside


def test_reliability_intervals_are_wilsons():
    curve = metrics.ReliabilityCurve(
        jnp.array([0.3, 0.0, 0.9]), jnp.array([0.5, 0.0, 1.0]), jnp.array([40, 0, 7])
    )
    ax = plot.reliability_diagram(curve, level=0.9)
    bars: Any = next(c for c in ax.containers if hasattr(c, "has_yerr"))
    segments = bars.lines[2][0].get_segments()
    for segment, (k, n) in zip(segments, [(20, 40), (7, 7)], strict=True):
        interval = scipy.stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
        np.testing.assert_allclose(
            segment[:, 1], [interval.low, interval.high], rtol=1e-6
        )


def test_grid_points_meet_their_values():
    grid = plot.plane_grid((0.0, 1.0), (10.0, 12.0), num_points=3)
    assert grid.shape == (9, 2)
    np.testing.assert_allclose(grid[:4], [[0, 10], [0.5, 10], [1, 10], [0, 11]])


def pixels(ax) -> Any:
    """The values of the image that is drawn on axes."""
    return ax.images[0].get_array()


def test_image_grid_holds_every_image_in_its_place():
    images = np.arange(6.0).reshape(6, 1, 1) / 5 * np.ones((6, 2, 2))
    figure = plot.sample_grid(images, real=1 - images, columns=3)
    left, right = (pixels(ax) for ax in figure.axes)
    # Two rows of three 2 x 2 images with a line of white between.
    assert left.shape == (5, 8)
    np.testing.assert_allclose(left[::3, ::3], images[:, 0, 0].reshape(2, 3))
    np.testing.assert_allclose(right[::3, ::3], 1 - images[:, 0, 0].reshape(2, 3))
    np.testing.assert_allclose(left[2], 1.0)


def test_standardised_images_are_drawn_between_their_extremes():
    """By the range of the real ones, so that both grids have one scale."""
    real = np.linspace(-1.0, 3.0, 16).reshape(1, 4, 4)
    figure = plot.sample_grid(2 * real, real=real)
    samples, drawn = (pixels(ax) for ax in figure.axes)
    np.testing.assert_allclose(drawn, (real[0] + 1) / 4)
    np.testing.assert_allclose(samples, np.clip((2 * real[0] + 1) / 4, 0, 1))
    (alone,) = plot.sample_grid(real).axes
    np.testing.assert_allclose(pixels(alone), drawn)


def test_paths_have_the_axes_that_sample_gives():
    """Each line is the path of one sample; starts and ends are where it begins."""
    paths = RNG.normal(size=(3, 7, 2))
    ax = plot.trajectories(paths)
    for line, path in zip(ax.lines, paths, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), path)
    start, end = (c.get_offsets() for c in ax.collections)
    np.testing.assert_array_equal(start, paths[:, 0])
    np.testing.assert_array_equal(end, paths[:, -1])
    levels = np.sort(RNG.uniform(size=(3, 7)), 1)
    ax = plot.trajectories(paths[..., 0], times=levels)
    for line, path, level in zip(ax.lines, paths, levels, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.c_[level, path[:, 0]])


def test_images_in_colour_and_beyond_their_limits():
    images = np.stack([np.full((3, 4, 4), -2.0), np.full((3, 4, 4), 0.0)])
    figure = plot.sample_grid(images, limits=(-1.0, 1.0))
    sheet = pixels(figure.axes[0])
    np.testing.assert_allclose(sheet[0, 0], 0.0)
    np.testing.assert_allclose(sheet[0, 5], 0.5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: plot.predictive_band(X, MEAN[:-1], STD), "mean has 49"),
        (lambda: plot.predictive_band(X, MEAN, -STD), "negative"),
        (lambda: plot.predictive_band(X, MEAN, INNER, epistemic=STD**2), "exceeds"),
        (
            lambda: plot.predictive_band(np.ones((3, 2)), MEAN, STD),
            r"x has shape \(3, 2",
        ),
        (lambda: plot.quantile_band(X, MEAN[None], [0.1, 0.9]), "2 levels and 50"),
        (lambda: plot.quantile_band(X, np.ones((2, 50)), [0.1, 0.8]), "symmetric"),
        (lambda: plot.prior_draws(X, np.ones((3, 9))), "50 values"),
        (lambda: plot.epistemic_map(GRID[:-1], GRID[:-1, 0]), "plane_grid"),
        (lambda: plot.trajectories(np.ones((3, 4, 5))), "paths has shape"),
        (lambda: plot.trajectories(np.ones((3, 4)), times=np.ones(3)), "one time"),
        (lambda: plot.pit_histogram(np.array([0.5, 1.5])), r"\[0, 1\]"),
        (lambda: plot.sample_grid(np.ones((3, 2, 4, 4))), "1 or 3 channels"),
        (
            lambda: plot.sample_grid(
                np.array([np.zeros((4, 4)), np.full((4, 4), np.nan)])
            ),
            r"samples\[1\] has NaN",
        ),
    ],
)
def test_bad_input_is_named(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_coverage_curve_counts_the_outcomes_in_each_interval():
    pit = RNG.beta(0.5, 0.5, size=300)
    ax = plot.coverage_curve(pit)
    observed: Any = ax.lines[-1]
    for level in (0.5, 0.9):
        inside = np.mean((pit >= (1 - level) / 2) & (pit <= (1 + level) / 2))
        at = np.argmin(np.abs(observed.get_xdata() - level))
        assert observed.get_ydata()[at] == pytest.approx(inside, abs=1e-9)
    low, high = _band(ax)
    # Half of the outcomes are in the interval of 1/2: a binomial of 300.
    assert low < 0.5 - 1.9 * np.sqrt(0.25 / 300)
    assert high > 0.5 + 1.9 * np.sqrt(0.25 / 300)
    assert high - low < 4.2 * np.sqrt(0.25 / 300)
    with pytest.raises(ValueError, match=r"all in \[0, 1\]"):
        plot.coverage_curve(np.array([1.2]))


def _band(ax):
    points = ax.collections[0].get_paths()[0].vertices
    middle = points[np.isclose(points[:, 0], 0.5)][:, 1]
    return middle.min(), middle.max()


def test_predicted_against_actual_draws_the_bars_of_chosen_points():
    y, mean, std = RNG.normal(size=900), RNG.normal(size=900), np.full(900, 0.25)
    ax = plot.predicted_against_actual(y, mean, std, max_points=30)
    points: Any = ax.lines[-1]
    lines: Any = ax.collections[0]
    assert len(points.get_xdata()) == 30
    (bars,) = lines.get_segments()[:1]
    assert bars[1, 0] - bars[0, 0] == pytest.approx(1.0)  # four deviations
    assert bars[0, 1] == pytest.approx(y[0])
    assert ax.get_xlabel() == "predicted y"
    with pytest.raises(ValueError, match="negative"):
        plot.predicted_against_actual(y, mean, -std)
