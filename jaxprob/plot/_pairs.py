"""Draws of a posterior, two parameters at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.figure import Figure

from ._axes import BLUE, GREY, ORANGE, VERMILION

_SHADES = (BLUE, ORANGE)


def pair_plot(
    draws: ArrayLike,
    *,
    names: Sequence[str] | None = None,
    box: ArrayLike | Sequence | None = None,
    truth: ArrayLike | Sequence | None = None,
    reference: ArrayLike | None = None,
    labels: tuple[str, str] = ("posterior", "reference"),
    num_bins: int = 40,
    title: str | None = None,
) -> Figure:
    """Draw the marginals of one and of two parameters.

    The diagonal has histograms; below it are the joint histograms of two parameters, in
    which each shade holds a part of the draws.

    **Arguments:**

    - `draws`: shape `(draws, params)`, see `jaxprob.metrics.parameter_matrix`.
    - `names`: of the parameters.
    - `box`: lower and upper ends of the prior, shape `(params, 2)`, drawn as grey
        lines; `inf` where it has none.
    - `truth`: true parameters, shape `(params,)`.
    - `reference`: draws of another posterior, drawn as contours.
    - `labels`: of the draws and the reference, in the legend.
    - `num_bins`: of each axis.
    - `title`: title of the figure.

    **Returns:** the figure.
    """
    rows = _rows("draws", draws)
    size = rows.shape[1]
    others = [] if reference is None else [_rows("reference", reference, size)]
    names = [f"θ{i + 1}" for i in range(size)] if names is None else list(names)
    if len(names) != size:
        raise ValueError(f"{len(names)} names for {size} parameters")
    ends = None if box is None else _shaped("box", box, (size, 2))
    point = None if truth is None else _shaped("truth", truth, (size,))
    limits = [_limits(i, rows, others, ends, point) for i in range(size)]
    edges = [np.linspace(low, high, num_bins + 1) for low, high in limits]

    side = max(3.2, 1.7 * size)
    figure = Figure(figsize=(side, side), dpi=120, layout="constrained")
    grid: Any = figure.subplots(size, size, squeeze=False)
    for i in range(size):
        for j in range(size):
            ax = grid[i, j]
            if j > i:
                ax.axis("off")
                continue
            if i == j:
                _marginal(ax, [rows, *others], i, edges[i])
            else:
                _joint(ax, rows, others, (j, i), (edges[j], edges[i]))
            _marks(ax, (j, i), ends, point)
            _edge(ax, i, j, size, names, limits)
    _legend(figure, bool(others), point is not None, ends is not None, labels)
    if title:
        figure.suptitle(title)
    return figure


def _rows(name, values, size=None):
    rows = np.asarray(values, float)
    if rows.ndim != 2 or len(rows) < 2 or (size is not None and rows.shape[1] != size):
        want = "params" if size is None else size
        raise ValueError(
            f"{name} has shape {rows.shape}: give (draws, {want}), at least two rows"
        )
    if not np.isfinite(rows).all():
        raise ValueError(f"{name} has an entry that is not finite: leave that draw out")
    return rows


def _shaped(name, values, shape):
    array = np.asarray(values, float)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}: give {shape}")
    return array


def _limits(i, rows, others, ends, point):
    values = np.concatenate([part[:, i] for part in (rows, *others)])
    low, high = np.quantile(values, [0.001, 0.999])
    if point is not None:
        low, high = min(low, point[i]), max(high, point[i])
    margin = 0.08 * (high - low) or 0.5
    low, high = low - margin, high + margin
    if ends is not None:  # a little beyond the prior, so that its end is seen
        low, high = (
            max(low, ends[i, 0] - margin / 2),
            min(high, ends[i, 1] + margin / 2),
        )
    return low, high


def _marginal(ax, samples, i, edges):
    for k, part in enumerate(samples):
        kind = "stepfilled" if k == 0 else "step"
        style = {"alpha": 0.5} if k == 0 else {"linewidth": 1.4}
        ax.hist(
            part[:, i],
            bins=edges,
            density=True,
            histtype=kind,
            color=_SHADES[k],
            **style,
        )
    ax.set_yticks([])


def _joint(ax, rows, others, columns, edges):
    count, levels = _smoothed(rows, columns, edges)
    middles = [(e[1:] + e[:-1]) / 2.0 for e in edges]
    shades = [(0.0, 0.447, 0.698, alpha) for alpha in (0.2, 0.45, 0.8)]
    ax.contourf(*middles, count.T, levels=[*levels, np.inf], colors=shades)
    for part in others:
        count, levels = _smoothed(part, columns, edges)
        ax.contour(*middles, count.T, levels=levels, colors=ORANGE, linewidths=1.0)


def _smoothed(rows, columns, edges):
    """Return a joint histogram, and the levels that hold 95, 80 and 50 % of it."""
    from scipy.ndimage import gaussian_filter

    count = np.histogram2d(*rows[:, columns].T, bins=edges)[0]
    count = gaussian_filter(count, 0.8)
    ordered = np.sort(count.reshape(-1))[::-1]
    held = np.cumsum(ordered) / ordered.sum()
    levels = [ordered[np.searchsorted(held, part)] for part in (0.95, 0.8, 0.5)]
    # contour needs levels that rise, which few filled cells may not give.
    return count, np.maximum.accumulate(levels) + 1e-9 * np.arange(3) * count.max()


def _marks(ax, columns, ends, point):
    j, i = columns
    if ends is not None:
        for end in ends[j]:
            ax.axvline(end, color=GREY, linewidth=1.0)
        if i != j:
            for end in ends[i]:
                ax.axhline(end, color=GREY, linewidth=1.0)
    if point is None:
        return
    if i == j:
        ax.axvline(point[i], color=VERMILION, linewidth=1.4)
    else:
        ax.plot(point[j], point[i], "o", color=VERMILION, markersize=4)


def _edge(ax, i, j, size, names, limits):
    ax.set_xlim(*limits[j])
    if i != j:
        ax.set_ylim(*limits[i])
    ax.tick_params(labelsize="x-small")
    ax.locator_params(nbins=4)
    if i == j:
        ax.set_yticks([])
        ax.spines[["top", "right", "left"]].set_visible(False)
    if i == size - 1:
        ax.set_xlabel(names[j])
    else:
        ax.set_xticklabels([])
    if j == 0 and i > 0:
        ax.set_ylabel(names[i])
    elif i != j:
        ax.set_yticklabels([])


def _legend(figure, other, truth, box, labels):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=BLUE, alpha=0.5, label=labels[0])]
    if other:
        handles.append(Line2D([], [], color=ORANGE, label=labels[1]))
    if truth:
        handles.append(
            Line2D([], [], color=VERMILION, marker="o", linestyle="", label="truth")
        )
    if box:
        handles.append(Line2D([], [], color=GREY, label="end of the prior"))
    figure.legend(handles=handles, loc="upper right", frameon=False, fontsize="small")
