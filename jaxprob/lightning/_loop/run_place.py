"""The place of a run in its data: which batch of which epoch's order comes next.

The order of the rows is a function of (seed, epoch), so the place determines all later
batches. It belongs to the run, not to a loader and not to a Trainer: a loader may be
used elsewhere, and a run may have many Trainers. The place advances by the batches that
Lightning counts, and after a failed dispatch by the steps that were made.
"""

import warnings
from dataclasses import replace
from typing import Any

from ..._training.loader import ArrayIterator, ArrayLoader, Place
from .._errors import CheckpointMismatchError
from .._trainer import private as _private


class RunPlace:
    """Place of the next batch, followed through the hooks of a fit.

    Its methods are called at the beginning of a fit, at the first batch of an epoch, at
    the end of each batch, and at the end of an epoch, in that order.
    """

    def __init__(self):
        self._next = Place(0)
        self._step = 0  # of the run, when `_next` was noted
        self._begin: Place | None = None  # of the Trainer's epoch in hand

    def at(self, step: int) -> Place:
        """Return the place of the batch that makes this step of the run."""
        return self._next.after(step - self._step)

    def restore(self, epoch: int, batch: int, step: int) -> None:
        """Go on from what a checkpoint holds."""
        self._next, self._step, self._begin = Place(epoch, batch), step, None

    def begin_fit(self, step: int) -> None:
        """Go on where the last fit stopped, whichever Trainer made it."""
        place = self.at(step)
        self.restore(place.epoch, place.batch, step)

    def begin_batch(self, trainer: Any, waiting: int) -> None:
        """Note where the Trainer's epoch began, at the first batch of it that is seen.

        **Arguments:**

        - `waiting`: batches that are counted and came before the one in hand.
        """
        if self._begin is None:
            done = _private.batch_in_epoch(trainer) - waiting
            self._begin = self._in_epoch(trainer).after(-done)

    def end_batch(self, trainer: Any, step: int) -> None:
        """Note that all batches the Trainer has counted are trained on."""
        if self._begin is not None:
            done = _private.batch_in_epoch(trainer) + 1
            self._next, self._step = self._begin.after(done), step

    def end_epoch(self, trainer: Any, step: int) -> None:
        """Take a new order for the next epoch, unless the fit stops in this one.

        Batches of an epoch that a fit leaves, by `max_steps`, are for the next fit.
        """
        begin, self._begin = self._begin, None
        if begin is not None and begin.batch == 0 and _private.is_last_batch(trainer):
            self._next = Place(begin.epoch + 1)
        self._step = step

    def of_iterator(self, trainer: Any, iterator: ArrayIterator) -> Place:
        """Return the place at which an iterator begins.

        An iterator of a callback begins at the first batch of the same epoch.
        """
        if not _private.draws_from(trainer, iterator):
            return Place(self._next.epoch)
        if _private.draws_again(trainer):  # a loader that Lightning cycles by itself
            return Place(self._next.epoch)
        return self._in_epoch(trainer)

    def _in_epoch(self, trainer):
        """Return the next place, with epochs of this Trainer's length."""
        place, per_epoch = self._next, _private.batches_in_epoch(trainer)
        if per_epoch is not None and place.batch >= per_epoch:
            place = Place(place.epoch + 1)
        return replace(place, per_epoch=per_epoch, cycle=_private.cycles(trainer))


def check_order(trainer: Any, place: Place) -> None:
    """Compare the settings that determine the order of the rows with a checkpoint's.

    **Raises:** `CheckpointMismatchError` in the middle of an epoch, whose other rows
    would be lost.

    **Warns:** between two epochs, where the run can continue with another order.
    """
    states = _private.take_loader_states(trainer)
    loaders = _private.stateful_loaders(trainer)
    for number, (loader, state) in enumerate(zip(loaders, states, strict=False)):
        if not isinstance(loader, ArrayLoader):
            continue
        found = loader.state_dict()
        differ = [
            f"{name} is {found[name]} and was {state[name]}"
            for name in found
            if name in state and state[name] != found[name]
        ]
        if not differ:
            continue
        which = f" (loader {number})" if len(loaders) > 1 else ""
        what = f"the training data{which} differ from the checkpoint's: "
        what += ", ".join(differ)
        if place.batch:
            raise CheckpointMismatchError(
                f"{what}. The checkpoint was written after batch {place.batch} of "
                f"epoch {place.epoch}, whose other rows these data do not give. "
                "Give the data, batch_size and seed of that run, or resume from a "
                "checkpoint of an epoch's end"
            )
        warnings.warn(
            f"{what}. From epoch {place.epoch} on the run sees other batches than it "
            "would have",
            stacklevel=2,
        )
