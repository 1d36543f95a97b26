"""Showing every batch to hooks of the user's, and saying what that costs."""

import warnings
from typing import Any

from .watchers import each_batch_watchers


class EachBatch:
    """Who is to be shown every batch of a fit, and the warnings about it, once each.

    **Fields:** `anybody`, whether code of the user's runs between two dispatches.
    """

    def __init__(self):
        self.anybody = False
        self._names: list[str] = []
        self._warned: set[str] = set()

    def look(self, trainer: Any, steps_per_dispatch: Any, one_by_one: bool) -> bool:
        """Whether each dispatch is to hold one step, which it may do for other reasons.

        A number of steps that the user gave is what counts; then somebody who is shown
        fewer batches than he may expect is named in a warning.
        """
        names = each_batch_watchers(trainer)
        self.anybody = bool(names)
        self._names = names if steps_per_dispatch == "auto" else []
        if names and not one_by_one and steps_per_dispatch not in ("auto", 1):
            self._warn(
                f"{_listing(names)}: the hooks of a batch are called for the last one "
                f"of each dispatch, of up to {steps_per_dispatch} steps "
                f"(steps_per_dispatch={steps_per_dispatch}). Leave steps_per_dispatch "
                f"out to show every batch, or set {names[0]}.sees_every_batch = False "
                "if that is meant"
            )
        return bool(self._names)

    def step_made(self, stepper: Any) -> None:
        """Warns where a step is so short that showing each one makes training slow."""
        if not self._names or stepper.tuning or stepper.affordable < 2:
            return
        names, self._names = self._names, []
        self._warn(
            f"{_listing(names)} may look at every batch, so that each dispatch holds "
            f"one step; training is faster with {stepper.affordable}. If it can do "
            f"with the last batch of each dispatch, set {names[0]}.sees_every_batch = "
            "False"
        )

    def _warn(self, message):
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=2)


def _listing(names):
    return ", ".join(dict.fromkeys(names))
