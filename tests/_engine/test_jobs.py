"""Jobs of processes and executors: all results, whatever dies or is late."""

import os
import pathlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxprob._engine import jobs as module
from jaxprob._engine.jobs import run_jobs


def square(x):
    return x * x


def dies_once(x, marker):
    """The first process that comes here with 3 is killed."""
    if x == 3 and not pathlib.Path(marker).exists():
        pathlib.Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def dies(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(x)


def raises(x):
    raise ValueError(f"no square of {x}")


class LateFuture:
    """A future of another library: no `concurrent.futures.Future`, slow to end."""

    def __init__(self, function, args, seconds):
        self.call = function, args
        self.end = time.monotonic() + seconds
        self.cancelled = False

    def done(self):
        return time.monotonic() >= self.end

    def result(self):
        function, args = self.call
        return function(*args)

    def cancel(self):
        self.cancelled = True


class LateExecutor:
    def __init__(self):
        self.futures = []

    def submit(self, function, *args):
        # Those that come first end last.
        seconds = 0.3 - 0.1 * len(self.futures)
        self.futures.append(LateFuture(function, args, seconds))
        return self.futures[-1]


JOBS = {f"job {x}": (x,) for x in range(3)}
SQUARES = {f"job {x}": x * x for x in range(3)}


def test_executors_of_threads_and_of_other_libraries():
    with ThreadPoolExecutor(2) as pool:
        assert dict(run_jobs(square, JOBS, executor=pool)) == SQUARES
    found = list(run_jobs(square, JOBS, executor=LateExecutor()))
    assert dict(found) == SQUARES
    assert [name for name, _ in found] == ["job 2", "job 1", "job 0"]


def test_an_executor_has_its_own_workers():
    with pytest.raises(ValueError, match="num_processes=2 is for processes of this"):
        list(run_jobs(square, JOBS, executor=LateExecutor(), num_processes=2))


def test_an_error_of_a_job_cancels_the_others():
    executor = LateExecutor()
    with pytest.raises(ValueError, match="no square of 2"):
        list(run_jobs(raises, JOBS, executor=executor))
    assert all(future.cancelled for future in executor.futures)


def test_a_worker_of_another_version_is_an_error(monkeypatch):
    executor = LateExecutor()
    found = run_jobs(square, JOBS, executor=executor)
    submitted = executor.submit

    def submit(function, version, *args):
        return submitted(function, "0.0.1", *args)

    monkeypatch.setattr(executor, "submit", submit)
    with pytest.raises(RuntimeError, match=r"caller 0\.0\.1: install one version"):
        list(found)


@pytest.mark.slow
def test_the_work_of_a_process_that_dies_is_done_again(tmp_path):
    marker = str(tmp_path / "died")
    jobs = {x: (x, marker) for x in range(6)}
    found = dict(run_jobs(dies_once, jobs, num_processes=1))
    assert pathlib.Path(marker).exists()
    assert found == {x: x * x for x in range(6)}


@pytest.mark.slow
def test_processes_that_die_again_and_again_are_an_error(monkeypatch):
    monkeypatch.setattr(module, "_DEATHS", 2)
    found = {}

    def collect():
        jobs = {x: (x,) for x in range(5)}
        for name, result in run_jobs(dies, jobs, num_processes=1):
            found[name] = result

    with pytest.raises(RuntimeError, match="died 2 times in a row"):
        collect()
    assert found == {0: 0, 1: 1, 2: 4}
