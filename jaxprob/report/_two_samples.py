"""Distances of samples to held-out rows, beside those of real rows."""

from collections.abc import Mapping

import jax
import numpy as np
from jaxtyping import Float

from .. import metrics
from .._types import PRNGKey
from ._parts import Table

NUM_NEIGHBOURS = 5


def two_sample_table(
    sets: Mapping[str, Float[np.ndarray, "rows dim"]],
    real: Float[np.ndarray, "real_rows dim"],
    *,
    key: PRNGKey,
) -> Table:
    """Return distances of several sets of rows to the same held-out rows.

    All sets are cut to one size, because every distance depends on it.

    **Arguments:**

    - `sets`: rows by name, each standardised like the held-out ones.
    - `real`: held-out rows.
    - `key`: of the random directions, the same for all sets.
    """
    size = min(len(real), *(len(rows) for rows in sets.values()))
    real = np.asarray(real[:size], np.float32)
    bandwidth = metrics.median_bandwidth(real, real)
    lines = []
    for name, rows in sets.items():
        rows = np.asarray(rows[:size], np.float32)
        line = [
            name,
            float(metrics.frechet_distance(rows, real)),
            float(metrics.sliced_wasserstein(rows, real, key=key, num_projections=200)),
            float(metrics.mmd2(rows, real, bandwidth=bandwidth)),
        ]
        scores = [np.nan] * 4
        if size > NUM_NEIGHBOURS:
            found = metrics.precision_recall_density_coverage(
                rows, real, num_neighbours=NUM_NEIGHBOURS
            )
            scores = [float(value) for value in jax.device_get(found)]
        lines.append((*line, *scores))
    head = ("", "Frechet distance", "sliced W2", "MMD²")
    return Table(
        (*head, "precision", "recall", "density", "coverage"),
        lines,
        f"Of {size} rows each, against {size} held-out rows, in standardised units. "
        "Distances are small and the others near 1 for good samples; real rows show "
        "what chance leaves. Density and precision see blurred samples, which a sliced "
        "distance does not.",
    )
