"""Loaders that are not ours: taken as they are, made safe, or refused."""

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
    """The loader that Lightning is to iterate.

    - A torch `DataLoader` is taken, unless its workers would be forked.
    - An `ArrayLoader` is taken; for predictions it tells writers its rows.
    - Any other iterable is taken as a `Handed` one.

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
    return loader if isinstance(loader, Handed) else Handed(loader)


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


class Handed:
    """A foreign iterable whose batches are copied as they are handed over.

    Batches wait until a dispatch is full. A loader that fills one buffer again and
    again would have changed the first by then.

    An iterator ends with its first epoch; where another one begins, that is an error
    and not an epoch without data.
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
    """The batch with copies of its NumPy arrays and tensors."""

    def copy(leaf):
        if isinstance(leaf, np.ndarray):
            return leaf.copy()
        return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf

    return jax.tree.map(copy, batch)


def _check_workers(loader):
    """JAX runs threads; a forked child has their locks and not the threads, and waits
    for ever when it touches one of them.
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
            "multiprocessing_context='forkserver', persistent_workers=True), or take "
            "no workers: ArrayDataModule needs none for data in memory"
        )


def _default():
    return multiprocessing.get_all_start_methods()[0]
