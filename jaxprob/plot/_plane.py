"""Plots over two inputs: maps of uncertainty and paths of samples."""

import numpy as np
from jaxtyping import ArrayLike, Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ._axes import BLUE, CYCLE, GREY, VERMILION, axes, few_ticks, legend_above, tidy


def plane_grid(
    x_limits: tuple[float, float],
    y_limits: tuple[float, float] | None = None,
    *,
    num_points: int = 100,
) -> Float[np.ndarray, "points 2"]:
    """Return the points of a square grid.

    **Arguments:**

    - `x_limits`, `y_limits`: ends of both axes; `y_limits` is `x_limits` by default.
    - `num_points`: number of points along each axis.

    **Returns:** the points in float32, as `epistemic_map` takes them.
    """
    y_limits = x_limits if y_limits is None else y_limits
    x, y = np.linspace(*x_limits, num_points), np.linspace(*y_limits, num_points)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return grid.astype(np.float32)


def epistemic_map(
    points: ArrayLike,
    values: ArrayLike,
    *,
    data: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    value_label: str = "mutual information (nats)",
    labels: tuple[str, str] = ("x1", "x2"),
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw uncertainty over the plane, with the training rows on top.

    **Arguments:**

    - `points`: the grid of `plane_grid`, shape `(num_points**2, 2)`.
    - `values`: one for each point, such as a mutual information or an epistemic
        standard deviation.
    - `data`: training inputs, shape `(rows, 2)`.
    - `classes`: their labels, shown as colours.
    - `value_label`, `labels`, `title`: labels of the colour bar and of the axes, and
        the title.
    - `ax`: axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    points, values = np.asarray(points, float), np.asarray(values, float)
    num = round(len(points) ** 0.5)
    if points.shape != (num * num, 2) or values.size != num * num:
        raise ValueError(
            f"points has shape {points.shape} and values {values.shape}: give "
            "(n * n, 2) and (n * n,), see `plane_grid`"
        )
    ax = axes(ax, size=(6.4, 4.3))
    x, y = points.reshape(num, num, 2).transpose(2, 0, 1)
    mesh = ax.contourf(x, y, values.reshape(num, num), levels=24, cmap="Blues")
    # Without this, vector formats show thin lines between the bands.
    mesh.set_edgecolor("face")
    # An inset is as high as the map, whose aspect is fixed.
    bar = ax.figure.colorbar(
        mesh,
        cax=ax.inset_axes((1.03, 0.0, 0.04, 1.0)),
        label=value_label,
        format="%.2g",
        ticks=MaxNLocator(6),
    )
    bar.outline.set_visible(False)
    tidy(ax, x=labels[0], y=labels[1], title=title)
    if data is not None:
        rows = np.asarray(data, float)
        kinds = np.zeros(len(rows), int) if classes is None else np.asarray(classes)
        # No blue, which is the colour of the map.
        colours = ("#E69F00", "#CC79A7", "#009E73", "#D55E00", "#F0E442", "0.2")
        for i, kind in enumerate(np.unique(kinds)):
            ax.scatter(
                *rows[kinds == kind].T,
                s=12,
                color=colours[i % len(colours)],
                edgecolors="white",
                linewidths=0.4,
                label=f"class {kind}" if classes is not None else "data",
            )
        legend_above(ax, 4)
    few_ticks(ax)
    ax.set_aspect("equal")
    return ax


def trajectories(
    paths: ArrayLike,
    *,
    times: ArrayLike | None = None,
    data: ArrayLike | None = None,
    labels: tuple[str, str] | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the paths of samples from noise to data.

    ```python
    draws = sample(
        denoiser, ExpAB(), key=key, num_samples=8, shape=(2,), trajectory=True
    )
    plot.trajectories(draws.path)
    ```

    **Arguments:**

    - `paths`: shape `(samples, times, 2)`, drawn in the plane, or `(samples, times)`
        or `(samples, times, 1)`, drawn over time; as `diffusion.sample` gives them.
    - `times`: times of the points of paths in one dimension: shape `(times,)`, or
        `(samples, times)` for different times of each path.
    - `data`: real points, in the plane.
    - `labels`, `title`: labels of the axes, and the title.
    - `ax`: axes to draw on; a new figure by default.

    **Returns:** the axes.
    """
    paths = np.asarray(paths, float)
    if paths.ndim == 3 and paths.shape[2] == 1:
        paths = paths[..., 0]
    plane = paths.ndim == 3
    if paths.ndim not in (2, 3) or (plane and paths.shape[2] != 2):
        raise ValueError(
            f"paths has shape {paths.shape}: give (samples, times, 2), or (samples, "
            "times) for samples in one dimension"
        )
    if plane:
        ax = axes(ax, size=(5.0, 4.6))
        if data is not None:
            ax.scatter(
                *np.asarray(data, float).T, s=8, color=GREY, linewidths=0, label="data"
            )
        ax.plot(paths[..., 0].T, paths[..., 1].T, color=BLUE, alpha=0.35, linewidth=0.7)
        ends = ((paths[:, 0], CYCLE[3], "start"), (paths[:, -1], VERMILION, "end"))
        for points, color, label in ends:
            ax.scatter(
                *points.T, s=10, color=color, linewidths=0, zorder=3, label=label
            )
        ax.set_aspect("equal", adjustable="datalim")
        default = ("x1", "x2")
    else:
        ax = axes(ax)
        num = paths.shape[1]
        clock = np.arange(num) if times is None else np.asarray(times, float)
        if clock.shape not in ((num,), paths.shape):
            raise ValueError(
                f"times has shape {clock.shape} and paths {paths.shape}: give one time "
                "for each point of a path"
            )
        ax.plot(clock.T, paths.T, color=BLUE, alpha=0.35, linewidth=0.7)
        ax.margins(x=0.01)
        default = ("step" if times is None else "t", "x_t")
    labels = default if labels is None else labels
    tidy(ax, x=labels[0], y=labels[1], title=title)
    if plane:
        legend_above(ax, 3)
    few_ticks(ax)
    return ax
