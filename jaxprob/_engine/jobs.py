"""Many independent calls of one function, by any executor."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, Protocol, TypeVar, runtime_checkable

from .._version import __version__
from .worker import Caller, call_here, packed, unpacked

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

    It is for work in which no job waits for another: folds of a cross-validation,
    settings of a sweep, splits of a benchmark.

    ```python
    def score(fold):
        train, test = folds[fold]
        estimator = BNNRegressor("map", num_steps=20, random_state=0)
        return estimator.fit(x[train], y[train]).score(x[test], y[test])

    scores = dict(jaxprob.run_jobs(score, {0: (0,), 1: (1,)}, executor=executor))
    ```

    A job has one process to itself, and its caller's settings of JAX that change
    numbers (double precision, kind of keys, precision of products), so its result does
    not depend on the number of workers. The work of a process of this machine that dies
    is done again in a new one.
    Functions and classes travel by value where a worker could not import them: those of
    notebooks and scripts, and lambdas (cloudpickle). A worker keeps what it has
    compiled on disk for its next jobs, until it ends; processes of this machine share
    that, and JAX's `JAX_COMPILATION_CACHE_DIR` keeps it for ever. What several jobs
    warn of is warned of once.

    **Arguments:**

    - `function`: of the arguments of a job. Its results are pickled on their way back.
    - `jobs`: the arguments of each job, by name.
    - `executor`: anything with `submit(function, *args)` that returns a future: a
        `concurrent.futures` executor, dask's `client.get_executor()`, a
        `submitit.AutoExecutor`. Its workers have the same version of jaxprob. By
        default new processes of this machine; a script then calls this under
        `if __name__ == "__main__":`, since each of them imports the script.
    - `num_processes`: of the default; as many as there are cores by default.

    **Raises:** what a job raises, with a note that names it, after the others have been
    cancelled; `ValueError` for `num_processes` beside an executor; `TypeError` for what
    no process can be sent. `RuntimeError` if processes die three times and no job ends
    in between, or if the workers of the executor have another version.
    """
    if executor is not None:
        if num_processes is not None:
            raise ValueError(
                f"num_processes={num_processes} is for processes of this machine, and "
                "an executor has its own workers: give one of the two"
            )
        if not isinstance(executor, Executor):
            raise TypeError(
                f"executor is a {type(executor).__name__}: it has submit(function, "
                "*args), as a concurrent.futures.ProcessPoolExecutor has"
            )
        yield from _submitted(executor, function, jobs, Caller.here(), set())
        return
    programs = tempfile.mkdtemp(prefix="jaxprob-programs-")
    try:
        yield from _in_processes(function, jobs, num_processes, Caller.here(programs))
    finally:
        shutil.rmtree(programs, ignore_errors=True)


def _in_processes(function, jobs, num_processes, caller):
    left, deaths, heard = dict(jobs), 0, set()
    while left:
        # The threads of JAX do not survive a fork.
        own = ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"))
        try:
            for name, result in _submitted(own, function, left, caller, heard):
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
        f"the worker processes died {deaths} times in a row while these jobs were "
        f"open: {names}. They were killed by the operating system for memory or by a "
        "fault in compiled code: give fewer processes or smaller jobs. Or they import "
        "a script that starts jobs itself: put what it does under "
        "`if __name__ == '__main__':`. What ended before is kept"
    )


def _submitted(executor, function, jobs, caller, heard):
    work = {name: packed(name, function, args) for name, args in jobs.items()}
    futures = {
        executor.submit(call_here, __version__, caller, call): name
        for name, call in work.items()
    }
    try:
        for future in _ended(list(futures)):
            try:
                result = future.result()
            except Exception as error:
                if not isinstance(error, BrokenExecutor):
                    error.add_note(f"jaxprob.run_jobs: in job {futures[future]!r}")
                raise
            yield futures[future], unpacked(futures[future], result, heard)
    except BaseException:
        for future in futures:
            future.cancel()
        raise


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
