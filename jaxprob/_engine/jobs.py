"""Many independent calls of one function, by any executor."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar, runtime_checkable

from .._version import __version__

Name = TypeVar("Name")

_DEATHS = 3
_POLL = 0.05  # seconds


@runtime_checkable
class Executor(Protocol):
    """Anything with `submit(function, *args)` that returns a future.

    A future has `result()`, `done()` and `cancel()`, as those of `concurrent.futures`,
    of dask's `Client.get_executor()` and of submitit have.
    """

    def submit(self, function: Callable, /, *args: Any) -> Any: ...


def run_jobs(
    function: Callable[..., Any],
    jobs: Mapping[Name, tuple],
    *,
    executor: Executor | None = None,
    num_processes: int | None = None,
) -> Iterator[tuple[Name, Any]]:
    """Yield the name and the result of each job, in the order in which they end.

    The work of a process that dies is done again in a new one.

    **Arguments:**

    - `function`: of the top level of a module that the workers can import.
    - `jobs`: the arguments of each job, by name.
    - `executor`: whose workers have the same version of jaxprob. By default processes
        of this machine.
    - `num_processes`: of the default; as many as there are cores by default.

    **Raises:** what a job raises, after the others have been cancelled; `ValueError`
    for `num_processes` beside an executor. `RuntimeError` if processes die three times
    and no job ends in between, or if the workers of the executor have another version.
    """
    if executor is not None:
        if num_processes is not None:
            raise ValueError(
                f"num_processes={num_processes} is for processes of this machine, and "
                "an executor has its own workers: give one of the two"
            )
        yield from _submitted(executor, function, jobs)
        return
    left, deaths = dict(jobs), 0
    while left:
        # The threads of JAX do not survive a fork.
        own = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
        try:
            for name, result in _submitted(own, function, left):
                del left[name]
                deaths = 0
                yield name, result
        except BrokenExecutor as error:
            deaths += 1
            if deaths == _DEATHS:
                raise _dead(deaths, left) from error
        finally:
            # An interrupt does not wait for the jobs that run.
            own.shutdown(wait=False, cancel_futures=True)


def _dead(deaths, left):
    names = ", ".join(map(str, list(left)[:5]))
    return RuntimeError(
        f"the worker processes died {deaths} times in a row, killed by the operating "
        "system for memory or by a fault in compiled code, while these jobs were open: "
        f"{names}. What ended before is kept. Give fewer processes, smaller jobs, or "
        "mend the function"
    )


def _submitted(executor, function, jobs):
    futures = {
        executor.submit(call_here, __version__, function, *args): name
        for name, args in jobs.items()
    }
    try:
        for future in _ended(list(futures)):
            yield futures[future], future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def call_here(version: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function on a worker whose jaxprob is that of the caller.

    **Raises:** `RuntimeError` if it is another.
    """
    if version != __version__:
        raise RuntimeError(
            f"this worker has jaxprob {__version__} and its caller {version}: install "
            "one version on all machines"
        )
    return function(*args)


def _ended(futures):
    if all(isinstance(future, Future) for future in futures):
        yield from as_completed(futures)
        return
    while futures:
        done = [future for future in futures if future.done()]
        yield from done
        futures = [future for future in futures if future not in done]
        if not done:
            time.sleep(_POLL)
