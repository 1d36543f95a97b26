"""Samples of a model beside data, by the shape of a row."""

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ..plot._axes import BLUE, GREY, legend_above, tidy
from ._pictures import density_pair, figure_of, new_axes

MOST_COLUMNS = 4


def is_image(rows: np.ndarray) -> bool:
    """Return whether rows are images of one or three channels."""
    return rows.ndim == 4 and rows.shape[1] in (1, 3)


def plane(
    samples: Float[np.ndarray, "samples 2"], real: Float[np.ndarray, "rows 2"]
) -> Figure:
    """Draw samples in the plane over real points."""
    ax = new_axes(4.6, 4.4)
    points = real.reshape(len(real), 2)
    ax.scatter(*points.T, s=8, color=GREY, linewidths=0, label="held-out rows")
    ax.scatter(
        *samples.reshape(len(samples), 2).T,
        s=8,
        color=BLUE,
        alpha=0.6,
        linewidths=0,
        label="samples",
    )
    ax.set_aspect("equal", adjustable="datalim")
    tidy(ax, x="x1", y="x2")
    legend_above(ax, 2)
    return figure_of(ax)


def column_pictures(
    samples: Float[np.ndarray, "samples ..."], real: Float[np.ndarray, "rows ..."]
) -> list[tuple[Figure, str]]:
    """Draw histograms of the columns in which samples and rows differ most."""
    one, other = (a.reshape(len(a), -1) for a in (samples, real))
    scale = np.maximum(other.std(axis=0), 1e-30)
    deciles = [np.quantile(rows, [0.1, 0.5, 0.9], axis=0) for rows in (one, other)]
    shift = np.abs(deciles[0] - deciles[1]).max(axis=0)
    worst = np.argsort(-shift / scale)[:MOST_COLUMNS]
    return [
        (
            density_pair(
                {"held-out rows": other[:, j], "samples": one[:, j]},
                label=f"entry {j} of a row",
            ),
            "One of the entries whose distributions differ most.",
        )
        for j in worst
    ]
