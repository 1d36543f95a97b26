"""Data checks, the same for batches that come one by one and for arrays."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from .._checks import check_tree_values
from .._types import Model
from .batch import Batch, num_rows, unpack
from .capabilities import AbstractDataCheck
from .host_batch import host_batch
from .learner import AbstractLearner


class DataCheck:
    """Check of the batches of one data set, on the host, in its first pass.

    Arrays in memory are checked as a whole before anything is traced. A list of
    batches, a torch `DataLoader` or any other iterable is checked by calling this with
    each batch before it is used, and `end` after the last; both do nothing once a pass
    is complete. Nothing waits for the device.

    **Arguments:**

    - `learner`: its `AbstractDataCheck`, if it has one, checks rows and their number.
    - `model`: the model to be trained or evaluated.
    - `training`: whether the data are the training set.
    """

    def __init__(self, learner: AbstractLearner, model: Model, *, training: bool):
        self.done = False
        self._training = training
        self._checks = learner.capability(AbstractDataCheck)
        self._check_rows: Callable[[PyTree], None] | None = None
        if self._checks is not None:
            self._check_rows = self._checks.check_batches(model, training=training)
        self._mixes_rows = training and _normalises_by_batch(model)
        self._index = 0
        self._rows = 0
        self._largest = 0
        self._counts = True

    def __call__(self, batch: PyTree) -> None:
        """Check the next batch.

        **Raises:** what the learner says of its rows, with the number of the batch.
        """
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(batch)):
            self.done = True  # values that cannot be looked at
        if self.done:
            return
        try:
            self._check(batch)
        except (ValueError, TypeError) as error:
            place = f"batch {self._index}"
            if type(error) not in (ValueError, TypeError):
                error.add_note(f"This is {place} of the data.")
                raise
            named = type(error)(f"{place}: {error}")
            for note in getattr(error, "__notes__", ()):
                named.add_note(note)
            raise named from error
        self._index += 1

    def end(self, *, whole: bool = True) -> None:
        """End the pass: the number of rows is known.

        **Arguments:**

        - `whole`: whether every batch was seen. Otherwise the next pass is checked too,
            but rows are not counted.
        """
        if self.done:
            return
        if not whole:
            self._counts = False
            return
        self.done = True
        known = self._counts and self._rows > 0 and jax.process_count() == 1
        if self._checks is not None and self._training and known:
            self._checks.check_num_rows(self._rows, largest=self._largest)

    def over(self, batches: Iterable[PyTree]) -> Iterator[PyTree]:
        """Iterate over batches, as arrays on the host, and check them on the way."""
        for batch in map(host_batch, batches):
            self(batch)
            yield batch
        self.end()

    def _check(self, batch):
        data = rows_that_count(batch)
        check_tree_values("data", data)
        if _is_counted(batch):
            self._rows += int(np.sum(batch.mask))
            return
        try:
            rows = num_rows(data)
        except ValueError:
            self._counts = False  # rows that only the loss can count
            return
        self._rows += rows
        if rows and self._check_rows is not None:
            self._check_rows(data)
        self._largest = max(self._largest, rows)
        padded = isinstance(batch, Batch) and batch.filled
        if self._mixes_rows and not padded and 2 * rows < self._largest:
            self._mixes_rows = False  # said once
            warnings.warn(
                f"batch {self._index} has {rows} rows after batches of "
                f"{self._largest}, and the model normalises by the statistics of a "
                "batch: those of a few rows move its running statistics as far as "
                "those of many. Give drop_last=True to the loader, or arrays, whose "
                "last batch is filled",
                stacklevel=2,
            )


def check_arrays_of(
    learner: AbstractLearner, model: Model, data: PyTree, *, training: bool
) -> None:
    """Check the rows of an `ArrayLoader` by the learner's `AbstractDataCheck`.

    The loader has rejected values that are not finite, so no row is looked at twice.

    **Raises:** as `AbstractDataCheck.check`.
    """
    checks = learner.capability(AbstractDataCheck)
    if checks is None:
        return
    checks.check_batches(model, training=training)(data)
    if training:
        checks.check_num_rows(num_rows(data))


def _is_counted(batch):
    """Return whether a mask counts rows that lie along no common leading axis."""
    if not isinstance(batch, Batch):
        return False
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(batch.data)}
    return lengths != {np.shape(batch.mask)}


def _normalises_by_batch(model):
    """True if outputs depend on the other rows of the batch."""

    def is_norm(node):
        return isinstance(node, eqx.nn.BatchNorm)

    nodes = filter(is_norm, jax.tree.leaves(model, is_leaf=is_norm))
    return any(not node.inference for node in nodes)


def rows_that_count(batch: PyTree) -> PyTree:
    """Return the rows of a batch that are not padding, as NumPy arrays."""
    if not isinstance(batch, Batch):
        return jax.tree.map(_on_host, batch)
    data, mask = unpack(batch)
    keep = np.asarray(mask)

    def rows(leaf):
        array = _on_host(leaf)
        # Nodes and edges of graphs, of which the mask counts the graphs.
        return array[keep] if np.shape(array)[:1] == keep.shape else array

    return jax.tree.map(rows, data)


def _on_host(leaf: Any) -> Any:
    return np.asarray(leaf) if hasattr(leaf, "__array__") else leaf
