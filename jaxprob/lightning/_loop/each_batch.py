"""Showing every batch to hooks of the user's, and what that costs."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

from ..._engine.stepper import Stepper
from .._trainer.watchers import each_batch_watchers

_STEP_OVERRIDES = ("training_step", "on_train_batch_start")


class EachBatch:
    """Decision of a fit whether each dispatch holds one step, so that hooks see each.

    A `training_step` of a subclass may change the batch, its `on_train_batch_start`
    may end the epoch by returning -1, and a callback may count steps.

    **Arguments:**

    - `steps_per_dispatch`: as the user gave it. A number takes precedence: callbacks
        that then see fewer batches than they may expect are named in a warning.
    - `overrides`: returns whether the user's module overrides a method.

    **Fields:** `any_watcher`, whether code of the user's runs between two dispatches.
    """

    def __init__(
        self,
        steps_per_dispatch: int | Literal["auto"],
        overrides: Callable[[str], bool],
    ):
        self.any_watcher = False
        self._steps_per_dispatch = steps_per_dispatch
        self._overrides = overrides
        self._names: list[str] = []
        self._one_by_one = False
        self._warned: set[str] = set()

    @property
    def one_by_one(self) -> bool:
        """`True` where a hook must see each batch, in dispatches of one step."""
        return self._one_by_one or any(map(self._overrides, _STEP_OVERRIDES))

    @property
    def shows_each_batch(self) -> bool:
        """`True` where each dispatch holds one step, for any reason."""
        return self.one_by_one or self._steps_per_dispatch == 1

    def begin_epoch(self, trainer: Any) -> None:
        """Decide for the next epoch."""
        names = each_batch_watchers(trainer)
        steps = self._steps_per_dispatch
        self.any_watcher = bool(names)
        self._names = names if steps == "auto" else []
        self._one_by_one = False
        if names and not self.one_by_one and steps not in ("auto", 1):
            self._warn(
                f"{_listing(names)}: the hooks of a batch are called for the last one "
                f"of each dispatch, of up to {steps} steps "
                f"(steps_per_dispatch={steps}). Leave steps_per_dispatch "
                f"out to show every batch, or set {names[0]}.sees_every_batch = False "
                "if that is meant"
            )
        self._one_by_one = bool(self._names)

    def end_dispatch(self, stepper: Stepper) -> None:
        """Warn if a step is so short that showing each one makes training slow."""
        if not self._names or stepper.tuning or stepper.affordable < 2:
            return
        names, self._names = self._names, []
        self._warn(
            f"{_listing(names)} may read every batch, so that each dispatch holds "
            f"one step; training is faster with {stepper.affordable}. If the last "
            "batch of each dispatch is enough for it, set "
            f"{names[0]}.sees_every_batch = False"
        )

    def _warn(self, message):
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=2)


def _listing(names):
    return ", ".join(dict.fromkeys(names))
