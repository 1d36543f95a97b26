"""Metrics of single steps, written when the device has computed them.

`self.log` takes half a millisecond and needs the value at once, so the device would be
idle while Python writes. Here the metrics of a dispatch are noted as device arrays.
After the next dispatch has been started, each step that must be logged goes to the
loggers under its number. If they are about to be read (by a checkpoint that monitors,
or a callback of the user's at the end of a batch), they are fetched at once.
"""

from dataclasses import dataclass
from typing import Any

from ..._engine.stepper import Stepper
from ..._engine.totals import StepMetrics
from .._trainer import private as _private
from .._trainer.watchers import checkpoint_reads, steps_are_read
from .anomaly import check_finite


@dataclass
class Note:
    """Metrics of one dispatch, and their places in the loggers.

    **Arguments:**

    - `metrics`: of all its steps.
    - `epoch`: to which they belong.
    - `numbers`: of its steps that end in an update, by their place in the dispatch, as
        loggers count.
    - `every`: updates from one that is logged to the next; 0 for never.
    - `logged`: whether the last one is logged in any case.
    """

    metrics: StepMetrics
    epoch: int
    numbers: dict[int, int]
    every: int
    logged: bool = False


class StepLog:
    """Note of the last dispatch, held until it is written."""

    def __init__(self):
        self._note: Note | None = None

    def take(self, trainer: Any, metrics: StepMetrics, behind: int = 0) -> None:
        """Take the metrics of a dispatch.

        **Arguments:**

        - `behind`: how many steps its last one comes before the one in hand.
        """
        previous = self._note
        in_hand = _private.batch_in_epoch(trainer)
        self._note = _note(trainer, metrics, in_hand - behind, in_hand)
        if previous is not None:
            _write(trainer, previous)
        if steps_are_read(trainer) or checkpoint_reads(trainer):
            _private.write_metrics(trainer, _values(metrics, -1))

    def add(self, trainer: Any, metrics: StepMetrics, following: int) -> None:
        """Take over metrics of steps that are over and were not taken.

        **Arguments:**

        - `following`: the number of the next update, as loggers count.
        """
        self.flush(trainer)
        last = _private.batch_in_epoch(trainer)
        self._note = _note(trainer, metrics, last, last, following)

    def forget(self, following: int) -> None:
        """Forget metrics of updates from a number on."""
        note = self._note
        if note is not None and any(n >= following for n in note.numbers.values()):
            self._note = None

    def end_step(self, trainer: Any, stepper: Stepper) -> None:
        """End the step in hand: only now is it known whether training stops.

        **Raises:** as `check_finite`.
        """
        if self._note is not None:
            check_finite(trainer, stepper, self._note.metrics)
            logged = _private.is_logged(trainer) or bool(trainer.fast_dev_run)
            self._note.logged = logged and not _private.window_is_open(trainer)

    def flush(self, trainer: Any) -> None:
        """Write the metrics that are still noted. This waits for the device."""
        note, self._note = self._note, None
        if note is not None:
            _write(trainer, note, final=True)


def _note(trainer, metrics, last, in_hand, logged=None):
    """Return the note of metrics of steps up to a place in the epoch."""
    every = trainer.log_every_n_steps if trainer.loggers else 0
    numbers = _numbers(trainer, metrics.num_steps, last, in_hand, logged)
    return Note(metrics, trainer.current_epoch, numbers, every)


def _numbers(trainer, num_steps, last, in_hand, logged):
    """Return the number of each update of a dispatch, by the place of its last step.

    Of accumulated batches the last one of each window makes the update, and its metrics
    are logged for it.

    **Arguments:**

    - `last`: place in the epoch of the last of these steps.
    - `in_hand`: place of the batch in hand.
    - `logged`: the number of the next update. It is the one of the batch in hand, if
        that is not over.
    """
    every = trainer.accumulate_grad_batches
    first = -(in_hand // every)  # number of the epoch's first update
    if logged is None:
        first += _private.logger_step(trainer)
    else:
        first = logged - (in_hand + 1) // every
    numbers = {}
    for place in range(num_steps):
        batch = last - (num_steps - 1 - place)
        full = (batch + 1) % every == 0
        if full or (batch == in_hand and not _private.window_is_open(trainer)):
            numbers[place] = first + batch // every
    return numbers


def _values(metrics, index):
    return {f"train_{k}_step": float(v[index]) for k, v in metrics.fetch().items()}


def _write(trainer, note, final=False):
    last = note.metrics.num_steps - 1
    steps = {
        place: number
        for place, number in note.numbers.items()
        if (note.every and (number + 1) % note.every == 0)
        or (place == last and note.logged)
    }
    if final or steps or _has_bar(trainer):
        _private.write_metrics(trainer, _values(note.metrics, -1))
    for logger in trainer.loggers if steps else ():
        for place, number in steps.items():
            values = _values(note.metrics, place)
            logger.log_metrics({**values, "epoch": note.epoch}, step=number)
        logger.save()


def _has_bar(trainer):
    bar = trainer.progress_bar_callback
    return bar is not None and not bar.is_disabled
