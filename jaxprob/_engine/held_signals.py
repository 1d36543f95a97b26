"""Handlers of signals, called between two dispatches and never inside one.

Python calls a handler between any two bytecodes. An exception that it raises there,
such as `KeyboardInterrupt`, may come after a program has consumed the state and before
the new state has a name. Inside a host callback XLA would turn it into an error of the
program. While `HELD` is entered, a signal is therefore noted, and its handler is called
on leaving. A second Ctrl-C breaks through.

Python ignores an exception that is raised in `__del__` or in a callback of the garbage
collector, such as JAX has: a Ctrl-C would be lost there. It waits in the same way.
"""

import inspect
import os
import signal
import threading
import weakref

# Those of `signal` make an enum of each answer, 4 microseconds, at every dispatch.
from _signal import (  # pyright: ignore[reportMissingImports]
    getsignal as get_handler,
    signal as set_handler,
)
from collections.abc import Callable
from threading import get_ident
from types import CodeType, FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

NUMBERS = tuple(
    int(getattr(signal, name))
    for name in (
        "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM",
        "SIGXCPU",
    )
    if hasattr(signal, name)
)  # fmt: skip
"""Signals whose handlers are held back, where they are functions."""


class Notes:
    """Base of an object whose methods, as handlers, only take note of a signal.

    They neither raise nor read the state, so they are called at once.
    """


class HeldSignals:
    """Context manager inside which handlers of signals wait.

    It can be entered again inside itself. Handlers are called in the main thread only,
    so in any other thread it does nothing.
    """

    def __init__(self):
        self._depth = 0
        self._users = 0  # runs for whose duration our handler stands
        self._within: CodeType | None = None
        self._theirs: dict[int, Handler] = {}
        self._pending: list[int] = []
        self._delivering: set[int] = set()
        self._ours = self._receive  # one object, so that it is known again

    # Each method is written so that it may end by an exception of a handler after any
    # line. What it leaves behind does no harm: at depth 0 our handler calls theirs.

    def __enter__(self) -> None:
        if get_ident() == _MAIN[0]:
            if not self._depth and not self._users:
                self._put_ours()
            self._depth += 1

    def __exit__(self, *_: object) -> None:
        if get_ident() != _MAIN[0]:
            return
        self._depth -= 1
        if self._depth or (self._users and not self._pending):
            return
        try:
            if not self._users:
                self._put_theirs()
        finally:
            self.deliver()

    def install(self) -> None:
        """Install our handlers for a whole run, so that entering costs less."""
        if _in_main_thread():
            self._put_ours()
            self._users += 1

    def uninstall(self) -> None:
        """Restore the handlers at the end of the run, and call what has waited."""
        if _in_main_thread():
            self._users = max(0, self._users - 1)
            if not self._users and not self._depth:
                self._put_theirs()
            self.deliver()

    def hold(self, within: CodeType) -> None:
        """Hold signals from here to `release`, which may be in another function.

        It ends at the latest when the function that has the code `within` has ended.
        """
        if _in_main_thread():
            self._within = within

    def release(self, deliver: bool = True) -> None:
        """Ends what `hold` began, and calls the handlers that have waited."""
        if _in_main_thread():
            self._within = None
            if deliver:
                self.deliver()

    def deliver(self) -> None:
        """Call the handlers of signals that came, unless still inside."""
        while self._pending and _in_main_thread():
            frame = inspect.currentframe()
            if self._holds(frame) or _is_ignored(frame):
                return
            self._call(self._pending.pop(0), frame)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        """Our handler. It must not raise of itself."""
        if not self._holds(frame) and not _is_ignored(frame):
            self._call(number, frame)
        elif number not in self._pending:
            self._pending.append(number)
        elif number == signal.SIGINT:  # the second Ctrl-C
            self._pending.remove(number)
            self._call(number, frame)

    def _holds(self, frame):
        if self._depth:
            return True
        if self._within is None:
            return False
        while frame is not None:
            if frame.f_code is self._within:
                return True
            frame = frame.f_back
        self._within = None  # it ended by an error in a hook, without a call
        return False

    def _call(self, number, frame):
        if number in self._delivering:
            return  # a handler that calls the one before it, which is ours
        self._delivering.add(number)
        try:
            self._theirs[number](number, frame)
        finally:
            self._delivering.discard(number)

    def _put_ours(self):
        for number in NUMBERS:
            current = get_handler(number)
            # Mostly it is a number, that of the default or of no handler.
            if isinstance(current, int) or current is self._ours or current is None:
                continue
            if isinstance(getattr(current, "__self__", None), Notes):
                continue
            self._theirs[number] = current
            set_handler(number, self._ours)

    def _put_theirs(self):
        for number, handler in self._theirs.items():
            if get_handler(number) is self._ours:
                set_handler(number, handler)


HELD = HeldSignals()
"""The only one: handlers belong to the process."""


def _is_ignored(frame):
    """Return whether Python ignores an exception that is raised in a frame."""
    while frame is not None:
        code = frame.f_code
        if code.co_name in _IGNORED or code.co_filename == weakref.__file__:
            return True
        frame = frame.f_back
    return False


_IGNORED = ("__del__", "_xla_gc_callback")


def _in_main_thread():
    return get_ident() == _MAIN[0]


def _note_main_thread():
    _MAIN[:] = [threading.main_thread().ident]


_MAIN: list[int | None] = []
_note_main_thread()
if hasattr(os, "register_at_fork"):  # a child's main thread is the one that forked
    os.register_at_fork(after_in_child=_note_main_thread)
