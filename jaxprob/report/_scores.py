"""Scores of predictions beside simple baselines, each with its standard error."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ._html import shown
from ._parts import Table

Losses = Mapping[str, Float[np.ndarray, " rows"]]
"""Losses of rows by the name of the score; smaller is better."""


@dataclass(frozen=True)
class Score:
    """A mean with its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, losses: Float[np.ndarray, " rows"]) -> "Score":
        """Return the mean over rows, which are taken to be independent."""
        rows = len(losses)
        error = losses.std(ddof=1) / np.sqrt(rows) if rows > 1 else np.nan
        return cls(float(losses.mean()), float(error))

    @property
    def root(self) -> "Score":
        """The square root, with the error of the delta method."""
        value = np.sqrt(self.value)
        error = self.error / (2.0 * value) if value > 0 else np.nan
        return Score(float(value), float(error))

    def __str__(self) -> str:
        if not np.isfinite(self.error):
            return shown(self.value)
        return f"{self.value:.4g} ± {self.error:.2g}"


def scores_table(model: Losses, baselines: Mapping[str, Losses]) -> Table:
    """Return scores of the model and of the baselines, and what the model gains.

    The gain is the mean difference of the losses of one row, with its standard error:
    the same hard rows are in both, so that it is known better than either score.
    """
    head = ["score, smaller is better", "model"]
    for name in baselines:
        head += [name, "gain"]
    rows = []
    for score, losses in model.items():
        root = score.startswith("RMSE")
        own = Score.of(losses)
        cells = [score, str(own.root if root else own)]
        for others in baselines.values():
            if score not in others:
                cells += ["-", "-"]
                continue
            other = Score.of(others[score])
            gain = Score.of(others[score] - losses)
            if root:
                better = other.root.value - own.root.value
                width = own.root.value + other.root.value
                gain = Score(better, gain.error / width if width > 0 else np.nan)
            cells += [str(other.root if root else other), str(gain)]
        rows.append(cells)
    return Table(
        head,
        rows,
        "± is one standard error over rows. A gain is how much smaller the model's "
        "score is on the same rows; one below twice its error is no evidence.",
    )
