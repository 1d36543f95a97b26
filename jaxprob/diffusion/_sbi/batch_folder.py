"""Batches of simulations, in a folder or in memory."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..._io import load, save


@dataclasses.dataclass
class SimulatedBatch:
    """Parameters, the observation of each row, and its error if it raised.

    **Fields:**

    - `theta`: a tree of arrays with a leading axis.
    - `observations`: one tree for each row, or `None`.
    - `errors`: one string for each row, empty if it did not raise.
    """

    theta: PyTree
    observations: list[Any]
    errors: list[str]


class BatchFolder:
    """Finished batches by the row at which they begin.

    Each batch is one file that is written whole or not at all, so that a run that is
    killed loses the batches it was in and no other.

    **Arguments:**

    - `folder`: where the files are; in memory if it is `None`.
    - `seed`, `batch_size`: of the run, which the folder belongs to.

    **Raises:** `ValueError` if the folder belongs to another run.
    """

    def __init__(self, folder: str | os.PathLike | None, seed: int, batch_size: int):
        self._memory: dict[int, SimulatedBatch] = {}
        self._folder = None if folder is None else Path(folder)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = {"seed": seed, "batch_size": batch_size}
        about = self._folder / "run.jaxprob"
        if not about.exists():
            save(about, settings)
        found = load(about)
        if found != settings:
            raise ValueError(
                f"{self._folder} holds simulations of {found} and this run has "
                f"{settings}: give another folder, or the key and batch_size of before"
            )

    def has(self, begin: int) -> bool:
        """Return whether the batch is finished."""
        if self._folder is None:
            return begin in self._memory
        return self._path(begin).exists()

    def write(self, begin: int, batch: SimulatedBatch) -> None:
        """Keep a finished batch."""
        if self._folder is None:
            self._memory[begin] = batch
        else:
            save(self._path(begin), dataclasses.asdict(batch))

    def read(self, begin: int, theta: PyTree) -> SimulatedBatch:
        """Return a finished batch.

        **Raises:** `ValueError` if its parameters are not those of this run's prior.
        """
        if self._folder is None:
            return self._memory[begin]
        batch = SimulatedBatch(**load(self._path(begin)))
        leaves, structure = jax.tree.flatten(theta)
        found, other = jax.tree.flatten(batch.theta)
        same = structure == other and all(map(np.array_equal, leaves, found))
        if not same:
            raise ValueError(
                f"{self._path(begin)} has the parameters of another prior: give "
                "another folder for this prior"
            )
        return batch

    def _path(self, begin):
        assert self._folder is not None
        return self._folder / f"batch_{begin:09d}.jaxprob"
