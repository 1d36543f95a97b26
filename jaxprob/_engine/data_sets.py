"""Data as users give them, made loaders of batches that are checked."""

from collections.abc import Iterable
from typing import Any

import jax
from jaxtyping import PyTree

from .._training.batch import Batch
from .._training.data_check import DataCheck, check_arrays_of
from .._training.learner import AbstractLearner
from .._training.loader import ArrayLoader
from .._types import Model


def as_loader(
    data: Any, batch_size: int, *, shuffle: bool, seed: int
) -> Iterable[PyTree]:
    """Return an `ArrayLoader` of arrays, and any other iterable as it is.

    **Raises:** `TypeError` for leaves that are not arrays.
    """
    if _is_list_of_batches(data):
        return data
    if isinstance(data, dict | tuple | list) or hasattr(data, "shape"):
        for path, leaf in jax.tree_util.tree_leaves_with_path(data):
            if not hasattr(leaf, "shape"):
                raise TypeError(
                    f"data{jax.tree_util.keystr(path)} is a {type(leaf).__name__}: "
                    "data is to be a pytree of arrays with one leading axis, or an "
                    "iterable of batches"
                )
        return ArrayLoader(data, batch_size=batch_size, shuffle=shuffle, seed=seed)
    return data


def first_pass_check(
    data: Iterable[PyTree] | None,
    learner: AbstractLearner,
    model: Model,
    *,
    training: bool,
) -> DataCheck:
    """Return the check of batches that come one by one; check the others now."""
    check = DataCheck(learner, model, training=training)
    if isinstance(data, ArrayLoader):
        check_arrays_of(learner, model, data.data, training=training)
        check.done = True
    elif isinstance(data, list):
        for _ in check.over(data):
            pass
    return check


def _is_list_of_batches(data):
    """A list of arrays is one data set; a list of trees of them is many batches."""
    trees = dict | tuple | list | Batch
    return isinstance(data, list) and all(isinstance(entry, trees) for entry in data)
