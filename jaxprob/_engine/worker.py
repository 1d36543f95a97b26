"""The worker's side of a job, and its way there and back."""

import atexit
import contextlib
import os
import pickle
import shutil
import socket
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import jax

from .._version import __version__

_MOST_BYTES = 2**60  # of programs on disk: none is removed

_CONTEXTS: dict[str, Callable[[Any], contextlib.AbstractContextManager]] = {
    "jax_enable_x64": jax.enable_x64,
    "jax_default_prng_impl": jax.default_prng_impl,
    "jax_threefry_partitionable": jax.threefry_partitionable,
    "jax_default_matmul_precision": jax.default_matmul_precision,
}
"""Settings of JAX that change numbers. A worker has those of its caller in a job."""


def _settings() -> dict[str, Any]:
    return {name: jax.config.values[name] for name in _CONTEXTS}


@dataclass(frozen=True)
class Caller:
    """The process that sends jobs.

    **Arguments:**

    - `process`: its host and number.
    - `programs`: a folder on the worker's machine for compiled programs, which
        several processes may use; by default the worker makes one.
    - `settings`: its settings of JAX that change numbers, those of now by default.
    """

    process: tuple[str, int]
    programs: str | None = None
    settings: dict[str, Any] = field(default_factory=_settings)

    @classmethod
    def here(cls, programs: str | None = None) -> "Caller":
        """Return this process."""
        return cls(_this_process(), programs)


def packed(name: Any, function: Callable[..., Any], args: tuple) -> bytes:
    """Return a call as bytes, with what a worker cannot import inside.

    **Raises:** `TypeError` naming the job, for what cannot be sent.
    """
    try:
        return cloudpickle.dumps((function, args))
    except Exception as error:
        raise TypeError(
            f"job {name!r} cannot be sent to another process: {error}. Make what "
            "cannot travel (open files, locks, generators) inside the function"
        ) from error


def call_here(version: str, caller: Caller, work: bytes) -> bytes:
    """Make a call of `packed`, and return its result as bytes for `unpacked`.

    **Raises:** what the call raises; `RuntimeError` if the worker has another version
    of jaxprob.
    """
    if version != __version__:
        raise RuntimeError(
            f"this worker has jaxprob {__version__} and its caller {version}: install "
            "one version on all machines"
        )
    if caller.process == _this_process():  # a thread, whose warnings reach the user
        with _as_of(caller):
            function, args = pickle.loads(work)
            return cloudpickle.dumps((function(*args), []))
    _keep_programs(caller.programs)
    with _as_of(caller), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        function, args = pickle.loads(work)
        try:
            result = function(*args)
        except Exception as error:
            raise _portable(error) from None
    said = [(str(w.message), w.category) for w in caught]
    return cloudpickle.dumps((result, said))


def unpacked(name: Any, result: bytes, heard: set) -> Any:
    """Return the result of a job, and warn of what `heard` does not hold yet."""
    value, said = pickle.loads(result)
    for warning in said:
        if warning not in heard:
            heard.add(warning)
            message, category = warning
            warnings.warn(f"job {name!r}: {message}", category, stacklevel=4)
    return value


@contextlib.contextmanager
def _as_of(caller: Caller) -> Iterator[None]:
    """Have the settings of the caller."""
    with contextlib.ExitStack() as stack:
        for name, value in caller.settings.items():
            stack.enter_context(_CONTEXTS[name](value))
        yield


def _portable(error: Exception) -> Exception:
    """Return an error that arrives as it is, or one that says the same."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    except Exception:
        pass  # its class cannot be imported, or takes other arguments
    return RuntimeError(f"{type(error).__name__}: {error}\n{error.__notes__[-1]}")


def _this_process() -> tuple[str, int]:
    return socket.gethostname(), os.getpid()


def _keep_programs(folder: str | None) -> None:
    """Let this process read and write compiled programs, as others do beside it."""
    # With a limit, files are read and written under a lock.
    jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    if folder is None or not os.path.isdir(folder):
        folder = tempfile.mkdtemp(prefix="jaxprob-programs-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_compilation_cache_dir", folder)
