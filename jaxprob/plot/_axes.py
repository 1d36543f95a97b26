"""Axes, legends and the colours of all plots."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# The colours of Okabe and Ito, for colour-blind readers and print.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
CYCLE = (BLUE, VERMILION, GREEN, ORANGE, "#CC79A7", "#56B4E9")
GREY, INK = "0.55", "0.15"


def axes(ax: Axes | None, *, size: tuple[float, float] = (6.0, 3.8)) -> Axes:
    """Return the given axes, or those of a new figure outside pyplot."""
    if ax is not None:
        return ax
    return Figure(figsize=size, dpi=120, layout="constrained").add_subplot()


def tidy(ax: Axes, *, x: str, y: str, title: str | None = None) -> None:
    """Set the labels and remove the upper and right spines."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if title:
        ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)


def legend_above(ax: Axes, columns: int) -> None:
    """Draw a legend above the axes, and move a title above the legend."""
    ax.legend(
        frameon=False,
        fontsize="small",
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        columnspacing=1.0,
        handlelength=1.4,
        handletextpad=0.5,
    )
    if ax.get_title():
        ax.set_title(ax.get_title(), pad=24)


def few_ticks(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.yaxis.set_major_locator(MaxNLocator(6))


def column(name: str, values: Any) -> np.ndarray:
    """Return a vector from an array that may have a second axis of length 1."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(
            f"{name} has shape {array.shape}: give (points,) or (points, 1)"
        )
    return array


def columns(**arrays: Any) -> list[np.ndarray]:
    """Return vectors of one length."""
    out = [column(name, values) for name, values in arrays.items()]
    if len({len(array) for array in out}) > 1:
        listing = ", ".join(
            f"{name} has {len(array)}" for name, array in zip(arrays, out, strict=True)
        )
        raise ValueError(f"arguments differ in their number of points: {listing}")
    return out
