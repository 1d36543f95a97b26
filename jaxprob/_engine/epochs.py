"""The batches of each epoch of a run, which may begin in the middle of one."""

import itertools
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from jaxtyping import PyTree

from .._training.data_check import DataCheck
from .._training.host_batch import host_batch
from .._training.loader import ArrayLoader
from .stepper import Stepper


def place_of(loader: Iterable[PyTree], step: int) -> tuple[int, int]:
    """Return the epoch, and the number of its batch, that a step of a run has.

    An iterable without a length is iterated up to that batch.

    **Raises:** `ValueError` for data without batches.
    """
    if not step:
        return 0, 0
    if isinstance(loader, Sized) and len(loader):
        return divmod(step, len(loader))
    for epoch in itertools.count():
        found = sum(1 for _ in itertools.islice(loader, step + 1))
        if not found:
            raise ValueError(
                f"data gave no batch in epoch {epoch}, and step={step} batches of it "
                "were trained on: is it a generator? Give the data of that run"
            )
        if found > step:
            return epoch, step
        step -= found
    raise AssertionError  # the loop has no end


def dispatches(
    loader: Iterable[PyTree],
    stepper: Stepper,
    check: DataCheck,
    *,
    limit: int | float,
    epoch: int,
    skip: int = 0,
) -> Iterator[Any]:
    """Yield the batches of one dispatch after the other, as many as it takes.

    **Arguments:**

    - `limit`: how many batches at most.
    - `epoch`, `skip`: number of the epoch, and of the batch in it to begin with.
    """
    if isinstance(loader, ArrayLoader):
        loader.set_epoch(epoch)
        yield from _stacks(loader.batches(epoch, skip), stepper, limit)
        return
    if skip:
        check.end(whole=False)  # the rest of an epoch
    batches = []
    index = -1
    for index, batch in enumerate(itertools.islice(loader, skip, None)):
        if index >= limit:
            check.end(whole=False)
            break
        batch = host_batch(batch)
        check(batch)
        batches.append(batch)
        if len(batches) >= stepper.capacity:
            yield batches
            batches = []
    else:
        if index >= 0:
            check.end()
    if batches:
        yield batches


def _stacks(iterator, stepper, limit):
    """The same of an `ArrayLoader`, each gathered in one go."""
    while limit > 0:
        most = int(min(stepper.capacity, limit))
        try:
            stack = iterator.take(most, stepper.slots)
        except StopIteration:
            return
        limit -= stack.num
        yield stack
