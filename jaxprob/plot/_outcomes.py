"""Predictions beside what came true."""

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ._axes import BLUE, GREY, INK, axes, columns, few_ticks, legend_above, tidy


def coverage_curve(
    pit: ArrayLike,
    *,
    level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the fraction of outcomes in the central intervals of all probabilities.

    Below the diagonal intervals are too narrow, above it too wide. Each point of the
    diagonal's band contains the curve with probability `level` if the predictions are
    calibrated.

    **Arguments:**

    - `pit`: values F(y) in [0, 1], see `jaxprob.metrics.pit_gaussian`. The interval of
        probability p contains y where |2 F(y) - 1| <= p.
    - `level`: probability of the band.
    - `title`, `ax`: title, and axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    from scipy.stats import binom

    values = np.asarray(pit, float).reshape(-1)
    if values.size == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError("pit: give at least one value F(y), all in [0, 1]")
    nominal = np.linspace(0.0, 1.0, 101)
    needed = np.sort(np.abs(2.0 * values - 1.0))
    found = np.searchsorted(needed, nominal, side="right") / values.size
    tail = (1.0 - level) / 2.0
    low = binom.ppf(tail, values.size, nominal) / values.size
    high = binom.ppf(1.0 - tail, values.size, nominal) / values.size
    ax = axes(ax, size=(4.8, 4.6))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="calibrated")
    ax.fill_between(
        nominal,
        # Of no trials and of certain ones the quantile of scipy is -1 or NaN.
        np.clip(np.nan_to_num(low), 0.0, 1.0),
        np.clip(np.nan_to_num(high, nan=1.0), 0.0, 1.0),
        color=GREY,
        alpha=0.25,
        linewidth=0,
        label=f"{100 * level:g} % band",
    )
    ax.plot(nominal, found, color=BLUE, linewidth=1.8, label="observed")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.01)
    ax.set_aspect("equal")
    tidy(
        ax, x="probability of the interval", y="fraction of outcomes in it", title=title
    )
    legend_above(ax, 3)
    return ax


def predicted_against_actual(
    y: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    num_std: float = 2.0,
    max_points: int = 500,
    label: str = "y",
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what was observed against its prediction, each with a bar of uncertainty.

    **Arguments:**

    - `y`, `mean`, `std`: outcomes, predictive means and standard deviations, shape
        `(points,)` or `(points, 1)`.
    - `num_std`: half length of a bar.
    - `max_points`: points that are drawn, evenly spaced in the order given.
    - `label`: name and unit of y.
    - `title`, `ax`: title, and axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    y, mean, std = columns(y=y, mean=mean, std=std)
    if (std < 0).any():
        raise ValueError(
            f"std[{int(np.argmax(std < 0))}] is negative: give standard "
            "deviations, not their logarithms"
        )
    chosen = np.unique(np.linspace(0, len(y) - 1, min(len(y), max_points)).astype(int))
    ax = axes(ax, size=(4.8, 4.6))
    ends = [min(y.min(), mean.min()), max(y.max(), mean.max())]
    ax.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="equal")
    ax.errorbar(
        mean[chosen],
        y[chosen],
        xerr=num_std * std[chosen],
        fmt="o",
        color=INK,
        ecolor=BLUE,
        markersize=2.5,
        elinewidth=0.7,
        alpha=0.6,
        label=f"predicted ±{num_std:g} sd",
    )
    tidy(ax, x=f"predicted {label}", y=f"observed {label}", title=title)
    few_ticks(ax)
    legend_above(ax, 2)
    return ax


def posterior_predictive(
    observed: ArrayLike,
    simulated: ArrayLike,
    *,
    at: ArrayLike | None = None,
    labels: tuple[str, str] = ("entry", "x"),
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw an observation among simulations of the posterior's draws.

    Where the observation is outside of the bands, the simulator with the parameters
    that were inferred does not make it (`jaxprob.metrics.predictive_check`).

    **Arguments:**

    - `observed`: shape `(features,)`.
    - `simulated`: shape `(draws, features)`, one simulation for each draw.
    - `at`: where the entries are along the axis, such as times; 0, 1, ... by default.
    - `labels`, `title`, `ax`: labels of the axes, title, and axes to draw on; a new
        figure by default.

    **Returns:** the axes.
    """
    observed, rows = np.asarray(observed, float), np.asarray(simulated, float)
    place = np.arange(len(observed)) if at is None else np.asarray(at, float)
    if (
        rows.ndim != 2
        or rows.shape[1:] != observed.shape
        or place.shape != (observed.shape)
    ):
        raise ValueError(
            f"observed has shape {observed.shape}, simulated {rows.shape} and at "
            f"{place.shape}: give (features,), (draws, features) and (features,)"
        )
    order = np.argsort(place)
    ax = axes(ax)
    for tail, alpha in ((0.025, 0.18), (0.25, 0.35)):
        low, high = np.quantile(rows, [tail, 1.0 - tail], axis=0)
        ax.fill_between(
            place[order],
            low[order],
            high[order],
            color=BLUE,
            alpha=alpha,
            linewidth=0,
            label=f"{100 * (1.0 - 2.0 * tail):g} %",
        )
    ax.plot(
        place[order],
        np.median(rows, axis=0)[order],
        color=BLUE,
        linewidth=1.5,
        label="median",
    )
    ax.plot(place, observed, "o", color=INK, markersize=4, label="observed")
    tidy(ax, x=labels[0], y=labels[1], title=title)
    few_ticks(ax)
    legend_above(ax, 4)
    return ax
