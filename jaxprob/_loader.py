"""Batches of arrays in memory, in an order that is a pure function of (seed, epoch)."""

from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import PyTree

from ._batch import Batch, Stack, num_rows
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

    def __iter__(self) -> "ArrayIterator":
        return ArrayIterator(self)

    def _table(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of an epoch, one line for each batch, and which of them count.

        Padding repeats a real row: the model sees nothing it could choke on.
        """
        order, size = self.order(epoch), self.batch_size
        num, rest = len(self), self.num_rows % self.batch_size
        mask = np.ones((num, size), bool)
        if self.drop_last or not rest:
            return order[: num * size].reshape(num, size), mask
        mask[-1, rest:] = False
        padding = np.repeat(order[(num - 1) * size], size - rest)
        return np.concatenate([order, padding]).reshape(num, size), mask

    def state_dict(self) -> dict[str, int]:
        """Where we are: the epoch, and how many of its batches were handed out."""
        return {"epoch": self.epoch, "position": self._position % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """The next iteration goes on where `state_dict` was taken."""
        self.epoch, self._start = state["epoch"], state["position"]
        self._position = self._start


class ArrayIterator(Iterator[PyTree]):
    """One epoch of an `ArrayLoader`, one batch at a time or many in one gather.

    It asks for the epoch at the first batch, so an epoch that is set between `iter` and
    `next`, as Lightning does, still counts.
    """

    def __init__(self, loader: ArrayLoader):
        self._loader = loader
        self._rows: np.ndarray | None = None

    def __next__(self) -> PyTree:
        rows, mask = self._advance(1)
        data = jax.tree.map(lambda a: a[rows[0]], self._loader.data)
        return data if self._loader.drop_last else Batch(data, mask[0])

    def take(self, num: int, capacity: int | None = None) -> Stack:
        """The next `num` batches, or as many as there are, in one gather.

        **Arguments:**

        - `num`: how many at most.
        - `capacity`: length of the leading axis, `num` by default; what is beyond the
            batches repeats the first one.

        **Raises:** `StopIteration` at the end of the epoch.
        """
        rows, mask = self._advance(num)
        count = len(rows)
        short = (num if capacity is None else capacity) - count
        if short > 0:
            rows = np.concatenate(
                [rows, np.broadcast_to(rows[:1], (short, rows.shape[1]))]
            )
            mask = np.concatenate(
                [mask, np.broadcast_to(mask[:1], (short, mask.shape[1]))]
            )
        data = jax.tree.map(lambda a: a[rows], self._loader.data)
        if self._loader.drop_last:
            return Stack(data, count)
        # A tree like a `Batch`, put together as one: its fields have an axis more.
        leaves = [*jax.tree.leaves(data), mask]
        return Stack(jax.tree.unflatten(self._structure, leaves), count)

    def _advance(self, num):
        """Row numbers and masks of the next batches."""
        loader = self._loader
        if self._rows is None:
            self._rows, self._mask = loader._table(loader.epoch)
            self._next, loader._start = loader._start, 0
            whole = Batch(loader.data, np.ones(loader.num_rows, bool))
            self._structure = jax.tree.structure(whole)
        cut = slice(self._next, self._next + num)
        rows = self._rows[cut]
        if not len(rows):
            raise StopIteration
        self._next += len(rows)
        loader._position = self._next
        return rows, self._mask[cut]
