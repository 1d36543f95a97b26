"""Nearest training rows: does the model repeat what it was trained on?"""

import numpy as np
from jaxtyping import Float, Int

BATCH = 64


def nearest(
    rows: Float[np.ndarray, "rows dim"], train: Float[np.ndarray, "train_rows dim"]
) -> tuple[Int[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Return the index of the nearest training row of each row, and the distance."""
    train = np.asarray(train, np.float64)
    square = (train**2).sum(axis=1)
    index, distance = [], []
    for begin in range(0, len(rows), BATCH):
        batch = np.asarray(rows[begin : begin + BATCH], np.float64)
        # The squares cancel digits, so the distance itself is computed anew below.
        at = (square[None] - 2.0 * batch @ train.T).argmin(axis=1)
        index.append(at)
        distance.append(np.sqrt(((batch - train[at]) ** 2).sum(axis=1)))
    return np.concatenate(index), np.concatenate(distance)


def copies(
    samples: Float[np.ndarray, " samples"], real: Float[np.ndarray, " real"]
) -> tuple[float, float]:
    """Return the distance below which 1 % of held-out rows lie, and what of samples.

    **Arguments:**

    - `samples`, `real`: distances to the nearest training row, of samples and of
        held-out rows.

    **Returns:** the distance, and the fraction of the samples that are nearer.
    """
    near = float(np.quantile(real, 0.01))
    return near, float((samples < near).mean())
