"""The checkpoint of a run that fails and has no memory for another step.

After an error the state is made again from the stepper's copy of an earlier one. If
there is no memory for that, callbacks that write a checkpoint read the copy, and until
they have returned the Trainer's counters are those of the copy.
"""

from dataclasses import dataclass
from typing import Any

import jax

from ..._training.loader import Place
from .._trainer import private as _private
from .._trainer.counts import Counts
from .run import Lent, Run


@dataclass(frozen=True)
class _Then:
    copied: int  # the step of the copy
    step: int  # of the run, when the counts were taken
    counts: Counts
    epoch: int
    place: Place  # of the copy


class LastCopy:
    """Counters of the Trainer at the time of the stepper's last copy of the state."""

    def __init__(self):
        self._then: _Then | None = None
        self._now: Any = None  # while the copy is lent

    def note(self, trainer: Any, run: Run, before: tuple[int, Counts] | None) -> None:
        """Look for a new copy after a dispatch.

        **Arguments:**

        - `before`: the step and the counts before the batches of the dispatch.
        """
        copied = run.stepper.copied_at
        known = self._then is not None and self._then.copied == copied
        if known or copied is None or before is None:
            return
        place = run.place.at(copied)
        self._then = _Then(copied, *before, trainer.current_epoch, place)

    def lend(
        self,
        trainer: Any,
        run: Run,
        before: tuple[int, Counts],
        error: BaseException,
    ) -> None:
        """Let the copy be read instead of the state, if that cannot be read."""
        if jax.process_count() > 1 or run.stepper.is_readable():
            return  # of several processes the others may have memory
        self.note(trainer, run, before)  # the dispatch that failed may have copied
        then = self._then
        state, step = run.stepper.last_copy()
        if then is None or then.copied != step:
            return
        error.add_note(
            f"jaxprob: there is no memory to make the last {run.step - step} steps "
            f"again. A checkpoint that is written now holds the state after {step}"
        )
        self._now = _private.progress(trainer)
        counts = then.counts.after(trainer, step - then.step)
        _private.set_epoch(trainer, then.epoch)
        _private.set_counts(trainer, counts)
        run.lent = Lent(state, step, then.place)

    def give_back(self, trainer: Any, run: Run) -> None:
        """Let the state itself be read again, with the counts that belong to it."""
        now, self._now, run.lent = self._now, None, None
        if now is not None:
            _private.set_progress(trainer, now)
