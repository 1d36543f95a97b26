"""The counters of a Trainer at one moment of a fit."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Counts:
    """Updates and batches that a Trainer has counted, and the loggers' x-coordinate.

    **Arguments:**

    - `updates`: of the optimiser, in all and in this epoch.
    - `batches`: in all and in this epoch.
    - `logged`: x-coordinate of the next values that are logged.
    """

    updates: tuple[int, int]
    batches: tuple[int, int]
    logged: int

    def after(self, trainer: Any, num: int) -> "Counts":
        """Return the counters `num` batches later in the epoch; earlier if negative."""
        every, last = trainer.accumulate_grad_batches, trainer.num_training_batches

        def updates(batches):
            return batches // every + (batches == last and batches % every > 0)

        in_all, in_epoch = self.batches
        more = updates(in_epoch + num) - updates(in_epoch)
        total, current = self.updates
        return Counts(
            (total + more, current + more),
            (in_all + num, in_epoch + num),
            self.logged + more,
        )
