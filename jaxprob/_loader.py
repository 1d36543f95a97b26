"""Batches of arrays in memory, in an order that is a pure function of (seed, epoch)."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import PyTree

from ._batch import Batch, num_rows
from ._checks import check_tree_finite


class ArrayLoader:
    """Sized, re-iterable, resumable batches of a pytree of NumPy arrays.

    The order of epoch e is `default_rng((seed, e)).permutation(num_rows)`: nothing
    else enters, so a run that is resumed in the middle of an epoch sees what the
    uninterrupted one saw. Each batch is one fancy-indexed copy: it aliases nothing.

    ```python
    for batch in ArrayLoader((x, y), batch_size=32, shuffle=True):
        (x_batch, y_batch), mask = jaxprob.unpack(batch)
    ```

    **Arguments:**

    - `data`: pytree of arrays with one leading axis, often `(x, y)`.
    - `batch_size`: rows in a batch. A set that is smaller makes one batch of its size.
    - `shuffle`: a new order in each epoch.
    - `seed`: of the order.
    - `drop_last`: leave out the ragged last batch, and yield plain data. By default it
        is padded to full size and every batch is a `jaxprob.Batch` with its mask.

    **Raises:** `ValueError` for no rows, arrays of different lengths, or NaN and
    infinite values, with the row and column; `TypeError` for arrays of objects.
    """

    def __init__(
        self,
        data: PyTree,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
    ):
        data = jax.tree.map(np.asarray, data)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            if leaf.dtype == object:
                name = "data" + jax.tree_util.keystr(path)
                raise TypeError(f"{name} is no rectangular array of numbers")
        rows = num_rows(data)
        if rows == 0:
            raise ValueError("data is empty: its leading axis has length 0")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: it must be at least 1")
        check_tree_finite("data", data)
        self.data = data
        self.num_rows = rows
        self.batch_size = min(batch_size, rows)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self._start = 0  # of the next iteration: zero but after load_state_dict
        self._position = 0

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full if self.drop_last or not rest else full + 1

    @property
    def sampler(self) -> "ArrayLoader":
        """Where Lightning looks for `set_epoch`."""
        return self

    @property
    def batch_sampler(self) -> None:
        """Lightning reads it wherever there is a `sampler`."""
        return None

    def set_epoch(self, epoch: int) -> None:
        """The next iteration yields the order of this epoch."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Row numbers in the order of an epoch."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)

    def __iter__(self) -> Iterator[PyTree]:
        # A generator: its body runs at the first `next`, so an epoch that is set
        # between `iter` and `next` (as Lightning does) still counts.
        order = self.order(self.epoch)
        start, self._start = self._start, 0
        for index in range(start, len(self)):
            self._position = index + 1
            yield self._batch(order[index * self.batch_size :][: self.batch_size])

    def _batch(self, rows: np.ndarray) -> PyTree:
        if self.drop_last:
            return jax.tree.map(lambda a: a[rows], self.data)
        # Padding repeats a real row: the model sees nothing it could choke on.
        short = self.batch_size - len(rows)
        mask = np.arange(self.batch_size) < len(rows)
        rows = np.concatenate([rows, np.repeat(rows[:1], short)]) if short else rows
        return Batch(jax.tree.map(lambda a: a[rows], self.data), mask)

    def state_dict(self) -> dict[str, int]:
        """Where we are: the epoch, and how many of its batches were handed out."""
        return {"epoch": self.epoch, "position": self._position % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on where `state_dict` was taken."""
        self.epoch, self._start = state["epoch"], state["position"]
        self._position = self._start
