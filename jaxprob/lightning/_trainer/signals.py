"""When the handlers of signals are called in a Trainer's run: between two steps.

Then the state, the Trainer's counters and the order of the data agree, and a checkpoint
that is written there resumes to the bits of the undisturbed run. Whatever a handler
does: the default one of Ctrl-C raises `KeyboardInterrupt`, Lightning's for Slurm writes
a checkpoint. A second Ctrl-C breaks through.
"""

from typing import Any

from ..._engine.held_signals import HELD
from . import private as _private


class TrainerSignals(_private.SignalConnector):
    """Lightning's handlers, held back inside the steps of a `LearnerModule`.

    They are called at once where nothing is under way: in validation, and in the hooks
    of callbacks at the begin and the end of an epoch.
    """

    def __init__(self, trainer: Any):
        super().__init__(trainer)
        self._standing = False

    def register_signal_handlers(self) -> None:
        """Called when everything is set up, before the sanity check."""
        super().register_signal_handlers()
        if not self._standing:
            HELD.install()
        self._standing = True

    def teardown(self) -> None:
        """The last thing of a run, also of one that has failed."""
        standing, self._standing = self._standing, False
        try:
            super().teardown()
        finally:
            HELD.release(deliver=False)
            if standing:
                HELD.uninstall()


def hold_signals(trainer: Any) -> None:
    """Puts ours in the place of the Trainer's, before a run."""
    _private.set_signal_connector(trainer, TrainerSignals(trainer))


def begin_work() -> None:
    """From here to `end_work` the run must not be left by an exception."""
    HELD.hold(_private.RUN)


def end_work() -> None:
    """Here it may be, and is if a signal came whose handler raises."""
    HELD.release()
