"""Calibration of a posterior over simulations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._axes import BLUE, CYCLE, GREY, axes, legend_above, tidy


def rank_histograms(
    ranks: ArrayLike,
    num_draws: int,
    *,
    names: Sequence[str] | None = None,
    num_bins: int = 20,
    level: float = 0.95,
    title: str | None = None,
) -> Figure:
    """Draw the ranks of true parameters among draws of the posterior.

    Under the band in the middle the posterior is too narrow, above it too wide; a slope
    is a bias. Each bar of a calibrated posterior is inside of the band with probability
    `level`, so that a bar or two of twenty outside of it are expected.

    **Arguments:**

    - `ranks`: of `jaxprob.metrics.posterior_ranks`, shape `(sims, params)`.
    - `num_draws`: number of draws that they are ranks among.
    - `names`: of the parameters.
    - `num_bins`: number of bars; fewer, if they would not have equally many ranks.
    - `level`: probability of the band.
    - `title`: title of the figure.

    **Returns:** the figure.
    """
    columns, names = _checked(ranks, num_draws, names)
    possible = num_draws + 1
    bins = max(b for b in range(1, min(num_bins, possible) + 1) if possible % b == 0)
    edges = np.linspace(-0.5, num_draws + 0.5, bins + 1)
    tail = (1.0 - level) / 2.0
    low, high = scipy.stats.binom.ppf([tail, 1.0 - tail], len(columns), 1.0 / bins)
    across = min(len(names), 4)
    down = -(-len(names) // across)
    size = (2.6 * across + 0.4, 2.2 * down + 0.3)
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    grid: Any = figure.subplots(down, across, squeeze=False, sharey=True)
    for ax in grid.reshape(-1)[len(names) :]:
        ax.axis("off")
    for ax, name, column in zip(grid.reshape(-1), names, columns.T, strict=False):
        ax.hist(column, bins=edges, color=BLUE, alpha=0.6)
        ax.axhspan(low, high, color=GREY, alpha=0.35, linewidth=0)
        ax.axhline(len(columns) / bins, color=GREY, linewidth=1.0)
        tidy(ax, x=f"rank of {name}", y="")
    for ax in grid[:, 0]:
        ax.set_ylabel("simulations")
    if title:
        figure.suptitle(title)
    return figure


def rank_curves(
    ranks: ArrayLike,
    num_draws: int,
    *,
    names: Sequence[str] | None = None,
    level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how far the distribution functions of ranks are from uniform.

    The whole curve of a calibrated posterior is inside of the band with probability
    `level`, for each parameter.

    **Arguments:**

    - as in `rank_histograms`, and `ax`: axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    columns, names = _checked(ranks, num_draws, names)
    shares = (columns + 0.5) / (num_draws + 1)
    ax = axes(ax)
    grid = np.arange(1, num_draws + 1) / (num_draws + 1)
    if num_draws > 200:
        grid = grid[:: num_draws // 100]
    half = _half_width(len(columns), grid, level)
    ax.fill_between(
        grid, -half, half, color=GREY, alpha=0.3, linewidth=0, label=_band(level)
    )
    ax.axhline(0.0, color=GREY, linewidth=1.0, linestyle="--")
    for k, (name, column) in enumerate(zip(names, shares.T, strict=True)):
        found = np.searchsorted(np.sort(column), grid) / len(column)
        ax.plot(grid, found - grid, color=CYCLE[k % len(CYCLE)], label=name)
    tidy(ax, x="rank / draws", y="share of ranks below, less uniform", title=title)
    legend_above(ax, 5)
    return ax


def coverage_of_levels(
    levels: Mapping[str, ArrayLike] | ArrayLike,
    *,
    level: float = 0.95,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the expected coverage of credible regions of all levels.

    Below the diagonal the posterior is too narrow. The whole curve of a calibrated one
    is inside of the band with probability `level`.

    **Arguments:**

    - `levels`: at which the region of each simulation reaches the truth, see
        `jaxprob.metrics.density_levels` and `jaxprob.metrics.tarp(...).shares`; several
        curves by name.
    - `level`: probability of the band.
    - `title`, `ax`: as in `rank_curves`.

    **Returns:** the axes.
    """
    named = levels if isinstance(levels, Mapping) else {"observed": levels}
    curves = {}
    for name, values in named.items():
        column = np.asarray(values, float)
        if column.ndim != 1 or not ((column >= 0.0) & (column <= 1.0)).all():
            raise ValueError(
                f"levels of {name!r}: give a vector of numbers in [0, 1], got shape "
                f"{column.shape}"
            )
        curves[name] = np.sort(column)
    if len({len(column) for column in curves.values()}) != 1:
        raise ValueError("levels: give each curve the same number of simulations")
    grid = np.linspace(0.01, 0.99, 99)
    half = _half_width(len(next(iter(curves.values()))), grid, level)
    ax = axes(ax, size=(4.8, 4.6))
    ax.fill_between(
        grid,
        np.clip(grid - half, 0.0, 1.0),
        np.clip(grid + half, 0.0, 1.0),
        color=GREY,
        alpha=0.3,
        linewidth=0,
        label=_band(level),
    )
    ax.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linewidth=1.0, linestyle="--")
    for k, (name, column) in enumerate(curves.items()):
        found = np.searchsorted(column, grid, side="right") / len(column)
        ax.plot(grid, found, color=CYCLE[k % len(CYCLE)], linewidth=1.8, label=name)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(0.0, 1.0)
    ax.set_aspect("equal")
    tidy(ax, x="credibility level", y="share of truths inside", title=title)
    legend_above(ax, 3)
    return ax


def _half_width(num, grid, level):
    """Return the half width of a band that holds the whole curve, by simulation."""
    rng = np.random.default_rng(0)
    spread = np.sqrt(grid * (1.0 - grid) / num)
    cells = np.diff(np.concatenate([[0.0], grid, [1.0]]))
    counts = rng.multinomial(num, cells, size=4000)
    curves = np.cumsum(counts, axis=1)[:, :-1] / num
    farthest = np.max(np.abs(curves - grid) / spread, axis=1)
    return np.quantile(farthest, level) * spread


def _band(level):
    return f"{100 * level:g} % band"


def _checked(ranks, num_draws, names):
    columns = np.asarray(ranks)
    if columns.ndim == 1:
        columns = columns[:, None]
    if columns.ndim != 2 or not len(columns):
        raise ValueError(f"ranks have shape {columns.shape}: give (sims, params)")
    if columns.min() < 0 or columns.max() > num_draws:
        raise ValueError(
            f"ranks are from {columns.min()} to {columns.max()}; among num_draws="
            f"{num_draws} they are 0, ..., {num_draws}"
        )
    size = columns.shape[1]
    names = [f"θ{i + 1}" for i in range(size)] if names is None else list(names)
    if len(names) != size:
        raise ValueError(f"{len(names)} names for {size} parameters")
    return columns, names
