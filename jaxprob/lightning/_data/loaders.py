"""Loaders of the user's: accepted, made safe, or rejected with a remedy."""

import multiprocessing
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import torch
from torch.utils.data import DataLoader

from ..._training.loader import ArrayIterator, ArrayLoader
from .._trainer import private as _private


def check_loader(loader: Any, *, predicting: bool = False) -> Any:
    """Return the loader that Lightning iterates.

    - A torch `DataLoader` is accepted, unless its workers would be forked.
    - An `ArrayLoader` is accepted; for predictions as an `IndexedLoader`.
    - Any other iterable is wrapped in a `CopyingLoader`.

    **Raises:** `ValueError` for workers that may hang, and for arrays: Lightning takes
    a list of batches for a list of loaders, and would train on their rows.
    """
    if isinstance(loader, np.ndarray | jax.Array | torch.Tensor):
        raise ValueError(
            f"a {type(loader).__name__} was given as a loader: Lightning takes a list "
            "of batches for a list of loaders, and an array for one that yields rows. "
            "Give arrays to ArrayDataModule(train=(x, y)), and batches as an object "
            "with __iter__, such as a torch DataLoader"
        )
    if isinstance(loader, DataLoader):
        _check_workers(loader)
        return loader
    if isinstance(loader, ArrayLoader):
        return IndexedLoader(loader) if predicting else loader
    return loader if isinstance(loader, CopyingLoader) else CopyingLoader(loader)


class IndexedLoader:
    """An `ArrayLoader` whose row numbers Lightning hands to prediction writers.

    They are the numbers of the rows that are no padding, and so are predictions.
    """

    def __init__(self, loader: ArrayLoader):
        self._loader = loader
        self.batch_sampler = _private.RowNumbers(loader)

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> ArrayIterator:
        self.batch_sampler.seen_batch_indices = self._loader.row_numbers()
        return iter(self._loader)


class CopyingLoader:
    """An iterable of the user's whose batches are copied.

    Batches wait until a dispatch is full. A loader that fills one buffer again and
    again would have changed the first batch by then.

    An iterator ends with its first epoch, and raises an error where another one begins.
    """

    def __init__(self, loader: Any):
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._loader, Iterator):
            return self._once(self._loader)
        return map(own, self._loader)

    def _once(self, iterator):
        count = 0
        for batch in map(own, iterator):
            count += 1
            yield batch
        if not count:
            raise ValueError(
                f"the loader is a {type(iterator).__name__} and is used up: it can be "
                "iterated once, and this is another epoch. Give an object whose "
                "__iter__ begins anew, or arrays to ArrayDataModule"
            )


def own(batch: Any) -> Any:
    """Return the batch with copies of its NumPy arrays and tensors."""

    def copy(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf

    return jax.tree.map(copy, batch)


def _check_workers(loader):
    """Reject workers that are forked.

    JAX runs threads. A forked child has their locks and not the threads, and waits for
    ever for one of them.
    """
    if not loader.num_workers:
        return
    context = loader.multiprocessing_context
    if context is None:
        method = multiprocessing.get_start_method(allow_none=True) or _default()
    else:
        method = context.get_start_method()
    if method == "fork":
        raise ValueError(
            f"DataLoader(num_workers={loader.num_workers}) forks this process, in "
            "which JAX runs: its workers may hang for ever. Write DataLoader(..., "
            "multiprocessing_context='forkserver', persistent_workers=True), or use "
            "no workers: ArrayDataModule needs none for data in memory"
        )


def _default():
    return multiprocessing.get_all_start_methods()[0]
