"""Batches of arrays in memory, in an order that is a pure function of (seed, epoch)."""

import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._checks import check_tree_values, reject_masked
from .batch import RowStack, Stack, as_batches, gather_rows, num_rows

RESIDENT_FRACTION = 0.25
"""Largest data set that is put on a device by default, as a part of its memory."""


class ArrayLoader:
    """Sized, re-iterable, resumable batches of a pytree of NumPy arrays.

    The order of epoch e is `default_rng((seed, e)).permutation(num_rows)`: nothing
    else enters, so a run that is resumed in the middle of an epoch sees what the
    uninterrupted one saw. The data are copied here if they can be written to, and each
    batch is one fancy-indexed copy: what becomes of the caller's arrays, or of a batch,
    changes nothing.

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
    - `resident`: whether the data lie on the device, where a dispatch gathers its rows;
        the batches are the same to the bit. By default they do on a GPU or TPU if they
        take at most a quarter of its memory. On a CPU there is nothing to be won.

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
        resident: bool | None = None,
    ):
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            reject_masked("data" + jax.tree_util.keystr(path), leaf)
        data = jax.tree.map(_own, data)
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            if leaf.dtype.kind in "OSUMm":
                name = "data" + jax.tree_util.keystr(path)
                raise TypeError(
                    f"{name} is no rectangular array of numbers: its dtype is "
                    f"{leaf.dtype}. Encode text as integers, and look up by row "
                    "numbers (a column np.arange(num_rows)) what is no number"
                )
        rows = num_rows(data)
        if rows == 0:
            raise ValueError("data is empty: its leading axis has length 0")
        if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer):
            raise TypeError(f"batch_size={batch_size!r}: give a whole number of rows")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: it must be at least 1")
        check_tree_values("data", data)
        self.data = data
        self.num_rows = rows
        self.batch_size = min(batch_size, rows)
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = 0
        self.process_rows = (0, 1, 1)
        self._resident = resident
        self._table_on_device: PyTree | None = None
        self._place: Callable[[ArrayIterator], Place] | None = None
        self.resumed: dict[str, Any] | None = None

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full if self.drop_last or not rest else full + 1

    @property
    def sampler(self) -> "ArrayLoader":
        """Itself, on which Lightning calls `set_epoch`."""
        return self

    @property
    def batch_sampler(self) -> None:
        """`None`: Lightning reads it beside `sampler`."""
        return None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch whose order the next iteration yields."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """Return the row numbers in the order of an epoch."""
        if not self.shuffle:
            return np.arange(self.num_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(self.num_rows)

    @property
    def process_rows(self) -> tuple[int, int, int]:
        """`(begin, end, parts)`: the rows of each batch that are handed out here.

        All by default; with several processes each takes its own, out of one order.
        """
        return self._process_rows

    @process_rows.setter
    def process_rows(self, rows: tuple[int, int, int]) -> None:
        begin, end, parts = rows
        if (begin, end) != (0, parts) and self.batch_size % parts:
            raise ValueError(
                f"batch_size={self.batch_size}: processes share the rows of a batch, "
                f"so it is to be a multiple of the {parts} devices along data"
            )
        self._process_rows = rows

    def device_table(self) -> PyTree | None:
        """The data on the device, where they are to lie there (see `resident`)."""
        if self._table_on_device is None and self._lies_on_device():
            self._table_on_device = jax.tree.map(
                lambda leaf: jnp.array(leaf, copy=True), self.data
            )
        return self._table_on_device

    def _lies_on_device(self):
        if jax.process_count() > 1:
            return False
        if self._resident is not None:
            return self._resident
        device = jax.devices()[0]
        if device.platform == "cpu":
            return False
        memory = (device.memory_stats() or {}).get("bytes_limit", 0)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.data))
        return size <= RESIDENT_FRACTION * memory

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_table_on_device": None, "_place": None}

    def __iter__(self) -> "ArrayIterator":
        return ArrayIterator(self, self._place or (lambda _: Place(self.epoch)))

    def batches(self, epoch: int, start: int = 0) -> "ArrayIterator":
        """Return the batches of an epoch from number `start` on.

        ```python
        for index, batch in enumerate(loader.batches(epoch, start), start):
            ...                         # a run that goes on in the middle of an epoch
        ```
        """
        return ArrayIterator(self, lambda _: Place(epoch, start))

    def following(self, place: "Callable[[ArrayIterator], Place]") -> "ArrayLoader":
        """Return a loader of the same rows, whose iterations begin where a run stands.

        It shares nothing that changes with this one: neither moves the other.

        **Arguments:**

        - `place`: asked by each iterator at its first batch.
        """
        self.device_table()  # made here, it serves all
        loader = copy.copy(self)
        loader._table_on_device = self._table_on_device
        loader._place = place
        return loader

    def _table(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Row numbers of an epoch, one line for each batch, and which of them count.

        The ragged last batch is filled with the first rows of the epoch. Copies of one
        row would make a batch without spread, and batch normalisation sees them too.
        """
        order, size = self.order(epoch), self.batch_size
        num, rest = len(self), self.num_rows % self.batch_size
        mask = np.ones((num, size), bool)
        if self.drop_last or not rest:
            order = order[: num * size]
        else:
            mask[-1, rest:] = False
            order = np.concatenate([order, order[: size - rest]])
        begin, end, parts = self.process_rows
        here = slice(size * begin // parts, size * end // parts)
        return order.reshape(num, size)[:, here], mask[:, here]

    def row_numbers(self) -> list[list[int]]:
        """Return the numbers of the rows that count, for each batch of this epoch."""
        rows, mask = self._table(self.epoch)
        return [row[which].tolist() for row, which in zip(rows, mask, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Return what the order of the rows is made of, for a checkpoint."""
        return {name: getattr(self, name) for name in _ORDER}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Note what the order of an earlier run was made of, as `resumed`."""
        self.resumed = dict(state)


_ORDER = ("num_rows", "batch_size", "seed", "shuffle", "drop_last")


@dataclass(frozen=True)
class Place:
    """Place of a batch in the order of a run, and how the run goes on from there.

    **Arguments:**

    - `epoch`: its order.
    - `batch`: number of the batch in the epoch.
    - `per_epoch`: batches in an epoch of the run, after which the next one begins; by
        default the iteration ends with this epoch.
    - `cycle`: whether a loader of fewer batches begins its epoch again.
    """

    epoch: int
    batch: int = 0
    per_epoch: int | None = None
    cycle: bool = False

    def after(self, num: int) -> "Place":
        """Return the place so many batches further on, or back for negative ones."""
        if self.per_epoch is None:
            return replace(self, batch=max(0, self.batch + num))
        epochs, batch = divmod(self.batch + num, self.per_epoch)
        return replace(self, epoch=self.epoch + epochs, batch=batch)


class ArrayIterator(Iterator[PyTree]):
    """Batches of an `ArrayLoader`, one at a time or many in one gather.

    It asks where to begin at the first batch, so an epoch that is set between `iter`
    and `next`, as Lightning does, still counts.
    """

    def __init__(self, loader: ArrayLoader, place: "Callable[[ArrayIterator], Place]"):
        self._loader = loader
        self._ask = place
        self._next: Place | None = None
        self._epoch: int | None = None  # of the table in hand

    def __next__(self) -> PyTree:
        rows, mask = self._advance(1)
        mask = None if self._loader.drop_last else mask[0]
        return gather_rows(self._loader.data, rows[0], mask)

    def take(self, num: int, capacity: int | None = None) -> Stack:
        """Return the next `num` batches, or as many as there are, in one gather.

        **Arguments:**

        - `num`: how many at most.
        - `capacity`: length of the leading axis, `num` by default; what is beyond the
            batches is anything.

        **Raises:** `StopIteration` at the end of the epoch.
        """
        rows, mask = self._advance(num)
        count = len(rows)
        slots = num if capacity is None else capacity
        mask = None if self._loader.drop_last else _lengthened(mask, slots)
        gather = functools.partial(gather_rows, self._loader.data)
        table = self._loader.device_table()
        if table is not None:
            return RowStack(table, _lengthened(rows, slots), mask, count, gather)
        data = jax.tree.map(
            lambda leaf: _gathered(leaf, rows, slots), self._loader.data
        )
        return Stack(as_batches(data, mask), count)

    def _advance(self, num):
        """Row numbers and masks of the next batches, across the end of an epoch too."""
        parts = []
        while num:
            rows, mask = self._advance_in_epoch(num)
            if not len(rows):
                break
            num -= len(rows)
            parts.append((rows, mask))
        if not parts:
            raise StopIteration
        if len(parts) == 1:
            return parts[0]
        rows, masks = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(masks)

    def _advance_in_epoch(self, num):
        if self._next is None:
            self._next = self._ask(self)
        place = self._next
        if place.epoch != self._epoch:
            self._rows, self._mask = self._loader._table(place.epoch)
            self._epoch = place.epoch
        begin = place.batch % len(self._rows) if place.cycle else place.batch
        if place.per_epoch is not None:
            num = min(num, place.per_epoch - place.batch)
        cut = slice(begin, begin + num)
        rows, mask = self._rows[cut], self._mask[cut]
        # A loader that is at its end stands still, while longer ones beside it go on.
        self._next = place.after(len(rows) or place.per_epoch is not None)
        return rows, mask


def _own(leaf: Any) -> np.ndarray:
    """An array that only we write to; a read-only one is not copied."""
    array = np.asarray(leaf)
    return array.copy() if array.flags.writeable else array


def _lengthened(array, slots):
    """The array, filled up to a length with copies of its first entry."""
    short = slots - len(array)
    if short <= 0:
        return array
    return np.concatenate([array, np.repeat(array[:1], short, 0)])


def _gathered(leaf, rows, slots):
    """`leaf[rows]` at the beginning of a buffer of a length; zeros in the rest, which
    no step computes with, but which JAX may convert.
    """
    if slots <= len(rows):
        return leaf[rows]
    out = np.zeros((slots, *rows.shape[1:], *leaf.shape[1:]), leaf.dtype)
    np.take(leaf, rows, axis=0, out=out[: len(rows)], mode="clip")
    return out
