"""Errors of the user's own code inside a program, raised as themselves.

What a host callback raises reaches Python as text inside an error of XLA's, of another
class. JAX logs the exception itself before that, and here it is taken from the log.
"""

import logging
from collections.abc import Callable
from typing import Any

import equinox as eqx

_LOGGERS = ("jax._src.callback", "jax._src.debugging")


class OwnErrors(logging.Filter):
    """Context manager that listens for errors of callbacks.

    Inside it they are not logged: they are raised. A callback may run in another
    thread, so all threads share what was heard last.
    """

    def __init__(self):
        super().__init__()
        self._inside: list[None] = []  # to append and to pop is atomic
        self._heard: BaseException | None = None

    def __enter__(self) -> "OwnErrors":
        self._inside.append(None)
        return self

    def __exit__(self, *_: object) -> None:
        self._inside.pop()
        if self._heard is not None and not self._inside:
            self._heard = None

    def call(self, program: Callable[..., Any], *args: Any) -> Any:
        """Call a program, and raise the error of the user's code if it fails."""
        with self:
            try:
                return program(*args)
            except Exception as error:
                user_error = self.of(error)
        # Outside of the `except`, or the user's error would get another context.
        raise user_error

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the exception of a record; return whether the record is to be logged."""
        heard = record.exc_info[1] if record.exc_info else None
        if not self._inside or heard is None:
            return True
        self._heard = heard
        return False

    def of(self, error: Exception) -> BaseException:
        """Return the error that the user's code raised, if this one reports it."""
        heard = self._heard
        if heard is None or type(heard).__name__ not in str(error):
            return error
        if type(heard).__module__.startswith("equinox."):
            # Equinox adds the advice to use `filter_jit`, which raises this class.
            return eqx.EquinoxRuntimeError(str(heard).split("\n\n\n-----")[0])
        return heard


def is_of_memory(error: BaseException) -> bool:
    """Return whether there was no memory, on the device or on the host.

    Such an error is one of the moment: the same step may succeed later.
    """
    if isinstance(error, MemoryError):
        return True
    # XLA's own, and the text of a callback's.
    return any(text in str(error) for text in ("RESOURCE_EXHAUSTED", "MemoryError"))


OWN_ERRORS = OwnErrors()
for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(OWN_ERRORS)
