"""Handlers of signals in a Trainer's run, which are called between two steps.

There the state, the Trainer's counters and the order of the data agree, and a
checkpoint resumes to the bits of the undisturbed run. This holds for any handler: the
default one of Ctrl-C raises `KeyboardInterrupt`, Lightning's for Slurm writes a
checkpoint. A second Ctrl-C is handled at once.
"""

from collections.abc import Callable
from typing import Any

from ..._engine.held_signals import HELD
from . import private as _private


class TrainerSignals(_private.SignalConnector):
    """Lightning's handlers, held back inside the steps of a `LearnerModule`.

    They are called at once between steps: in validation, and in the hooks of callbacks
    at the beginning and the end of an epoch.
    """

    def __init__(self, trainer: Any):
        super().__init__(trainer)
        self._standing = False
        self.leave: Callable[[], None] = _nothing  # called when a run has ended

    def register_signal_handlers(self) -> None:
        """Install the handlers: Lightning calls it before the sanity check."""
        super().register_signal_handlers()
        if not self._standing:
            HELD.install()
        self._standing = True

    def teardown(self) -> None:
        """Restore the handlers: the last act of a run, also of one that has failed."""
        standing, self._standing = self._standing, False
        leave, self.leave = self.leave, _nothing
        try:
            leave()
            super().teardown()
        finally:
            HELD.release(deliver=False)
            if standing:
                HELD.uninstall()


def hold_signals(trainer: Any, leave: Callable[[], None]) -> None:
    """Let our connector replace the Trainer's, before a run.

    **Arguments:**

    - `leave`: called at the end of the run, after all callbacks, also if it failed.
    """
    _private.set_signal_connector(trainer, TrainerSignals(trainer))
    connector = _private.signal_connector(trainer)
    if isinstance(connector, TrainerSignals):
        connector.leave = leave


def begin_work() -> None:
    """Hold handlers back until `end_work`: no exception may leave the run between."""
    HELD.hold(_private.RUN)


def end_work() -> None:
    """Call the handlers of signals that were held back; they may raise."""
    HELD.release()


def _nothing() -> None:
    pass
