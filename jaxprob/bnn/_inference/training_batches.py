"""The training set, for a posterior that needs another pass."""

from collections.abc import Iterable, Iterator
from typing import Any

from jaxtyping import PyTree

from ..._training.batch import Batch
from ..._training.data_check import DataCheck
from ..._training.learner import AbstractLearner
from ..._types import Model


class TrainingBatches:
    """Batches of a training set, checked in the first pass like those of `fit`.

    **Arguments:**

    - `learner`, `model`: what the rows are checked against.
    - `batches`: an iterable of batches, or one batch: `(x, y)` is taken as `[(x, y)]`.
    """

    def __init__(self, learner: AbstractLearner, model: Model, batches: Any):
        self._check = DataCheck(learner, model, training=True)
        self._batches = as_iterable(batches)

    def __iter__(self) -> Iterator[PyTree]:
        if isinstance(self._batches, Iterator):
            # A generator that a second pass finds at its end.
            self._batches = list(self._batches)
        return self._check.over(self._batches)


def as_iterable(batches: Any) -> Iterable[PyTree]:
    """Return an iterable of batches, also where one batch is given.

    **Raises:** `TypeError` for what cannot be batches.
    """
    if isinstance(batches, Batch | dict) or _is_array(batches):
        return [batches]
    if isinstance(batches, tuple | list) and any(map(_is_array, batches)):
        return [tuple(batches)]  # (x, y), not a list of batches
    if not isinstance(batches, Iterable):
        raise TypeError(
            f"batches is a {type(batches).__name__}: give the training data, such as "
            "[(x, y)] or an ArrayLoader"
        )
    return batches


def _is_array(value):
    return hasattr(value, "shape") and hasattr(value, "dtype")
