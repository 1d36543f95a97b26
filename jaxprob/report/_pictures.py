"""Pictures of a report that `jaxprob.plot` does not have, and their sizes."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..plot._axes import BLUE, GREY, VERMILION, axes, few_ticks, legend_above, tidy

POINTS = 500


def new_axes(width: float = 4.8, height: float = 3.6) -> Axes:
    """Return axes of a size whose text is legible at the width of a phone."""
    return axes(None, size=(width, height))


def figure_of(ax: Axes) -> Figure:
    """Return the figure of axes that are in no subfigure."""
    assert isinstance(ax.figure, Figure)
    return ax.figure


def parts_of_uncertainty(
    epistemic: Float[np.ndarray, " entries"],
    aleatoric: Float[np.ndarray, " entries"],
    *,
    unit: str,
) -> Figure:
    """Draw the epistemic against the aleatoric part of each prediction."""
    chosen = _chosen(len(epistemic))
    ax = new_axes()
    most = max(float(epistemic.max()), float(aleatoric.max()))
    ax.plot(
        [0, most], [0, most], color=GREY, linewidth=1, linestyle="--", label="equal"
    )
    ax.scatter(
        aleatoric[chosen],
        epistemic[chosen],
        s=9,
        color=BLUE,
        alpha=0.5,
        linewidths=0,
        label="rows",
    )
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    tidy(ax, x=f"noise, aleatoric ({unit})", y=f"model, epistemic ({unit})")
    few_ticks(ax)
    legend_above(ax, 2)
    return figure_of(ax)


def error_by_spread(
    std: Float[np.ndarray, " entries"], error: Float[np.ndarray, " entries"]
) -> Figure:
    """Draw the RMSE of ten groups of rows against their mean predicted deviation."""
    groups = np.array_split(np.argsort(std), min(10, len(std)))
    predicted = np.array([np.sqrt(np.mean(std[g] ** 2)) for g in groups])
    found = np.array([np.sqrt(np.mean(error[g] ** 2)) for g in groups])
    # A standard deviation of n values has the relative error 1 / sqrt(2 n).
    half = 2.0 * found / np.sqrt([2.0 * len(g) for g in groups])
    ax = new_axes()
    most = 1.05 * float(max(predicted.max(), (found + half).max()))
    ax.plot(
        [0, most], [0, most], color=GREY, linewidth=1, linestyle="--", label="equal"
    )
    ax.errorbar(
        predicted,
        found,
        yerr=half,
        fmt="o",
        color=BLUE,
        markersize=4.5,
        elinewidth=1.2,
        label="groups of rows, ±2 se",
    )
    ax.set_xlim(0, most)
    ax.set_ylim(0, most)
    tidy(ax, x="predicted standard deviation", y="RMSE in the group")
    few_ticks(ax)
    legend_above(ax, 2)
    return figure_of(ax)


def density_pair(
    values: dict[str, Float[np.ndarray, " draws"]], *, label: str
) -> Figure:
    """Draw histograms of draws on common bins, as densities."""
    ax = new_axes(height=2.6)
    joined = np.concatenate(list(values.values()))
    low, high = np.quantile(joined, [0.002, 0.998])
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41)
    for (name, draws), color in zip(values.items(), (GREY, BLUE), strict=False):
        ax.hist(draws, bins, density=True, color=color, alpha=0.55, label=name)
    tidy(ax, x=label, y="density")
    few_ticks(ax)
    legend_above(ax, 2)
    return figure_of(ax)


def traces(values: Float[np.ndarray, "chains draws"], *, label: str) -> Figure:
    """Draw a statistic over the draws of each chain."""
    ax = new_axes(height=2.6)
    colors = (BLUE, VERMILION, GREY, "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
    for i, chain in enumerate(values[: 2 * len(colors)]):
        ax.plot(chain, linewidth=0.8, alpha=0.8, color=colors[i % len(colors)])
    tidy(ax, x="draw", y=label)
    few_ticks(ax)
    return figure_of(ax)


def _chosen(rows: int) -> np.ndarray:
    return np.unique(np.linspace(0, rows - 1, min(rows, POINTS)).astype(int))
