"""Do stated probabilities come true? Pictures with the bands that chance allows."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ..metrics import ReliabilityCurve, RiskCoverage
from ._axes import BLUE, CYCLE, GREY, INK, VERMILION, axes, legend_above, tidy


def reliability_diagram(
    curve: ReliabilityCurve,
    *,
    level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw accuracy against confidence: underconfident above the diagonal.

    Each bin has Wilson's interval of its accuracy; an interval that crosses the
    diagonal is consistent with calibration. The bars at the bottom are the fractions of
    rows in the bins.

    **Arguments:**

    - `curve`: result of `jaxprob.metrics.reliability_curve`.
    - `level`: coverage of the intervals.
    - `title`, `ax`: title, and axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    from scipy.stats import norm

    count = np.asarray(curve.count)
    filled = count > 0
    count = count[filled]
    confidence = np.asarray(curve.confidence, float)[filled]
    accuracy = np.asarray(curve.accuracy, float)[filled]
    # Wilson (1927): within [0, 1], and of positive length at 0 and 1.
    z2 = norm.ppf(0.5 + level / 2) ** 2 / count
    centre = (accuracy + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * accuracy * (1 - accuracy) + z2**2 / 4) / (1 + z2)
    low = np.minimum(centre - half, accuracy)
    high = np.maximum(centre + half, accuracy)

    ax = axes(ax, size=(4.8, 4.6))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    width = 0.8 / len(np.asarray(curve.count))
    ax.bar(
        confidence,
        0.25 * count / count.max(),
        width=width,
        color=GREY,
        alpha=0.35,
        linewidth=0,
        label="rows per bin",
    )
    ax.plot(confidence, accuracy, color=BLUE, linewidth=1, alpha=0.5)
    ax.errorbar(
        confidence,
        accuracy,
        yerr=[accuracy - low, high - accuracy],
        fmt="o",
        color=BLUE,
        markersize=4.5,
        elinewidth=1.4,
        capsize=2.5,
        label=f"accuracy, {100 * level:g} % interval",
    )
    ax.set_xlim(0, 1.02)
    ax.set_ylim(0, 1.02)
    ax.set_aspect("equal")
    ax.text(
        0.04, 0.93, f"ECE {float(curve.error()):.3f}", transform=ax.transAxes, color=INK
    )
    tidy(ax, x="confidence", y="accuracy", title=title)
    legend_above(ax, 3)
    return ax


def pit_histogram(
    pit: ArrayLike,
    *,
    num_bins: int = 20,
    level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the histogram of F(y), which is flat if predictions are calibrated.

    A U shape shows overconfidence, a hump underconfidence, a slope bias. The band
    contains each bar with probability `level` if predictions are calibrated: at .95 one
    bar of 20 is expected outside.

    **Arguments:**

    - `pit`: values in [0, 1], see `jaxprob.metrics.pit_gaussian`.
    - `num_bins`: number of bars.
    - `level`: probability of the band.
    - `title`, `ax`: title, and axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    from scipy.stats import binom

    values = np.asarray(pit, float).reshape(-1)
    if values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("pit: give at least one value F(y), all in [0, 1]")
    count, edges = np.histogram(values, bins=num_bins, range=(0.0, 1.0))
    expected = values.size / num_bins
    tails = (1 - level) / 2
    low, high = binom.ppf([tails, 1 - tails], values.size, 1 / num_bins) / expected
    ax = axes(ax)
    ax.axhspan(
        low,
        high,
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label=f"{100 * level:g} % band if calibrated",
    )
    ax.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
    height = count / expected
    outside = (height < low) | (height > high)
    ax.bar(
        edges[:-1],
        height,
        width=1 / num_bins,
        align="edge",
        edgecolor="white",
        linewidth=0.6,
        alpha=0.85,
        color=[VERMILION if out else BLUE for out in outside],
    )
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.12 * max(height.max(), high))
    tidy(ax, x="F(y)", y="density", title=title)
    legend_above(ax, 1)
    return ax


def risk_coverage_curves(
    curves: Mapping[str, RiskCoverage],
    *,
    risk_label: str = "risk of kept rows",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the risk of the most certain rows against their fraction, by method.

    **Arguments:**

    - `curves`: results of `jaxprob.metrics.risk_coverage`, by name.
    - `risk_label`, `title`: label of the risk axis, and the title.
    - `ax`: axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    ax = axes(ax)
    for i, (name, curve) in enumerate(curves.items()):
        risk = np.asarray(curve.risk, float)
        ax.plot(
            np.asarray(curve.coverage, float),
            risk,
            color=CYCLE[i % len(CYCLE)],
            linewidth=1.6,
            label=f"{name} (AURC {risk.mean():.3g})",
        )
    ax.set_xlim(0, 1.01)
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, fontsize="small", loc="best")
    tidy(ax, x="coverage: fraction of rows kept", y=risk_label, title=title)
    return ax
