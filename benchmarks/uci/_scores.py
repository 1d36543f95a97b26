"""Scores of each split and their file."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxprob.metrics import coverage, rmse

Scores = dict[str, float]


def score(
    log_prob: Any,
    mean: Any,
    y: Any,
    interval: tuple[Any, Any],
    units: float,
) -> Scores:
    """Return the scores of the test rows of one split, in original units.

    A density changes with the units of its variable: dividing y by a scale adds the
    logarithm of the scale to each log-density.
    """
    y = jnp.asarray(y)
    return {
        "log_likelihood": float(np.mean(np.asarray(log_prob))) - float(np.log(units)),
        "rmse": float(rmse(y, jnp.asarray(mean, y.dtype))) * float(units),
        "coverage_90": float(coverage(y, *interval)),
        "width_90": float(np.mean(np.asarray(interval[1] - interval[0]))) * units,
    }


class Results:
    """A JSON file of scores by set, method and split, written whole each time."""

    def __init__(self, path: Path | None):
        self.path = path
        self.table: dict[str, dict[str, dict[str, Scores]]] = {}
        if path is not None and path.exists():
            self.table = json.loads(path.read_text())

    def merge(self, path: Path) -> None:
        """Add the splits of another file; its figures replace those that are there."""
        for name, methods in json.loads(path.read_text()).items():
            for method, splits in methods.items():
                self._row(name, method).update(splits)
        self.save()

    def missing(self, name: str, method: str, splits: Iterable[int]) -> list[int]:
        """The splits of which nothing is kept yet."""
        done = self._row(name, method)
        return [split for split in splits if str(split) not in done]

    def add(self, name: str, method: str, split: int, scores: Scores) -> None:
        self._row(name, method)[str(split)] = scores

    def values(self, name: str, method: str, metric: str) -> list[float]:
        """One figure of each split that is there."""
        row = self.table.get(name, {}).get(method, {})
        return [scores[metric] for scores in row.values()]

    def save(self) -> None:
        """Replace the file atomically."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.table, indent=1, sort_keys=True))
        os.replace(part, self.path)

    def _row(self, name, method):
        return self.table.setdefault(name, {}).setdefault(method, {})
