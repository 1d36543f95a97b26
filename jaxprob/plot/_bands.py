"""Predictions along one input, with their uncertainty."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import ArrayLike
from matplotlib.axes import Axes

from ._axes import (
    BLUE,
    INK,
    ORANGE,
    axes,
    column,
    columns,
    few_ticks,
    legend_above,
    tidy,
)


def _points(ax: Axes, data: tuple[Any, Any] | None) -> None:
    if data is not None:
        x, y = columns(**{"data[0]": data[0], "data[1]": data[1]})
        ax.scatter(x, y, s=9, color=INK, alpha=0.6, linewidths=0, label="data")


def predictive_band(
    x: ArrayLike,
    mean: ArrayLike,
    std: ArrayLike,
    *,
    epistemic: ArrayLike | None = None,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    num_std: float = 2.0,
    labels: tuple[str, str] = ("x", "y"),
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the predictive mean, the band of total and that of epistemic uncertainty.

    The difference between the bands is noise, which more data do not reduce. Variances
    add up and standard deviations do not, so the inner band looks larger than its part
    of the variance.

    **Arguments:**

    - `x`, `mean`, `std`: inputs, predictive means and total standard deviations, shape
        `(points,)` or `(points, 1)`, in any order.
    - `epistemic`: variance of the mean, as `predictive.epistemic` gives it; its square
        root is the half width of the inner band.
    - `data`: `(x, y)` of training rows.
    - `num_std`: half width of both bands, in standard deviations.
    - `labels`, `title`: labels of the axes, and the title.
    - `ax`: axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    x, mean, std = columns(x=x, mean=mean, std=std)
    if (std < 0).any():
        raise ValueError(
            f"std[{int(np.argmax(std < 0))}] is negative: give standard "
            "deviations, not their logarithms"
        )
    order = np.argsort(x)
    ax = axes(ax)

    def fill(scale, **style):
        low, high = mean - num_std * scale, mean + num_std * scale
        ax.fill_between(x[order], low[order], high[order], linewidth=0, **style)

    fill(std, color=BLUE, alpha=0.18, label=f"total, ±{num_std:g} sd")
    if epistemic is not None:
        (variance, _) = columns(epistemic=epistemic, x=x)
        if (variance < 0).any():
            row = int(np.argmax(variance < 0))
            raise ValueError(f"epistemic[{row}] is negative: it is a variance")
        if (variance > std**2 * (1 + 2e-4)).any():
            raise ValueError(
                "epistemic exceeds std**2, of which it is a part: give the variance "
                "predictive.epistemic, and in std the standard deviation predictive.std"
            )
        fill(
            np.sqrt(variance),
            color=ORANGE,
            alpha=0.55,
            label=f"epistemic, ±{num_std:g} sd",
        )
    ax.plot(x[order], mean[order], color=BLUE, linewidth=1.8, label="mean")
    _points(ax, data)
    tidy(ax, x=labels[0], y=labels[1], title=title)
    few_ticks(ax)
    ax.margins(x=0.01)
    legend_above(ax, 4)
    return ax


def quantile_band(
    x: ArrayLike,
    quantiles: ArrayLike,
    levels: ArrayLike | Sequence[float],
    *,
    data: tuple[ArrayLike, ArrayLike] | None = None,
    labels: tuple[str, str] = ("x", "y"),
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw nested central intervals between quantiles, for any predictive distribution.

    **Arguments:**

    - `x`: inputs, shape `(points,)` or `(points, 1)`.
    - `quantiles`: shape `(levels, points)`.
    - `levels`: in (0, 1), ascending and symmetric about 1/2, such as
        `[0.05, 0.25, 0.5, 0.75, 0.95]`.
    - `data`, `labels`, `title`, `ax`: as for `predictive_band`.

    **Returns:** the axes.
    """
    x, levels = column("x", x), column("levels", levels)
    values = np.asarray(quantiles, dtype=float)
    if values.shape != (len(levels), len(x)):
        raise ValueError(
            f"quantiles has shape {values.shape}: there are {len(levels)} levels and "
            f"{len(x)} points, so give shape {(len(levels), len(x))}"
        )
    if (np.diff(levels) <= 0).any() or not np.allclose(levels + levels[::-1], 1.0):
        raise ValueError(f"levels={levels}: give ascending levels, symmetric about 1/2")
    order = np.argsort(x)
    ax = axes(ax)
    bands = len(levels) // 2
    for i in range(bands):
        ax.fill_between(
            x[order],
            values[i][order],
            values[-1 - i][order],
            color=BLUE,
            alpha=0.15 + 0.15 * i,
            linewidth=0,
            label=f"{100 * (levels[-1 - i] - levels[i]):.0f} %",
        )
    if len(levels) % 2:
        middle = values[bands][order]
        ax.plot(x[order], middle, color=BLUE, linewidth=1.8, label="median")
    _points(ax, data)
    tidy(ax, x=labels[0], y=labels[1], title=title)
    few_ticks(ax)
    ax.margins(x=0.01)
    legend_above(ax, bands + 2)
    return ax


def prior_draws(
    x: ArrayLike,
    draws: ArrayLike,
    *,
    highlight: int = 3,
    labels: tuple[str, str] = ("x", "f(x)"),
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw functions from a prior (or posterior), and their central 90 %.

    **Arguments:**

    - `x`: inputs, shape `(points,)` or `(points, 1)`.
    - `draws`: one function per row, shape `(draws, points)`.
    - `highlight`: number of functions that are drawn as dark lines.
    - `labels`, `title`, `ax`: as for `predictive_band`.

    **Returns:** the axes.
    """
    x = column("x", x)
    values = np.asarray(draws, dtype=float).reshape(len(np.asarray(draws)), -1)
    if values.shape[1] != len(x):
        raise ValueError(
            f"draws has shape {np.shape(draws)}: give the {len(x)} values of one "
            "function in each row"
        )
    order = np.argsort(x)
    ax = axes(ax)
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    ax.fill_between(
        x[order],
        low[order],
        high[order],
        color=BLUE,
        alpha=0.15,
        linewidth=0,
        label="central 90 %",
    )
    faint = values[highlight:][:, order].T
    if faint.size:
        ax.plot(x[order], faint, color=BLUE, alpha=0.25, linewidth=0.7)
    for i, row in enumerate(values[:highlight]):
        label = "draws" if i == 0 else None
        ax.plot(x[order], row[order], color=INK, linewidth=1.3, label=label)
    tidy(ax, x=labels[0], y=labels[1], title=title)
    few_ticks(ax)
    ax.margins(x=0.01)
    legend_above(ax, 2)
    return ax
