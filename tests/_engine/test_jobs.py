"""Jobs of processes and executors: all results, whatever dies or is late."""

import os
import pathlib
import pickle
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from jaxprob import NonFiniteError, run_jobs
from jaxprob._engine import jobs as module
from jaxprob._engine.worker import Caller, call_here, packed, unpacked
from jaxprob._training.non_finite import restored
from jaxprob.bnn import ChainError


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


ELSEWHERE = Caller(("another host", 1))


def sent(function, *args, heard=None, caller=ELSEWHERE):
    """The result of a call, by the way to a process and back, in this one."""
    work = call_here(module.__version__, caller, packed("a job", function, args))
    return unpacked("a job", work, set() if heard is None else heard)


@pytest.fixture(autouse=True)
def programs_stay_where_they_are(monkeypatch):
    monkeypatch.setattr("jaxprob._engine.worker._keep_programs", lambda folder: None)


def test_what_no_worker_can_import_travels():
    factor = np.arange(3)

    class Scaled:
        def __call__(self, x):
            return factor * x

    assert sent(lambda f, x: f(x).sum(), Scaled(), 2) == 6
    found = sent(lambda: [Scaled(), lambda: 5])
    assert found[0](1).tolist() == [0, 1, 2]
    assert found[1]() == 5


def kinds():
    return str(jax.numpy.ones(2).dtype), str(jax.random.key(0).dtype)


def test_a_job_has_the_settings_of_its_caller():
    expected = ("float64", "key<rbg>")
    with jax.enable_x64(True), jax.default_prng_impl("rbg"):
        assert sent(kinds, caller=Caller(("another host", 1))) == expected
        with ThreadPoolExecutor(1) as pool:  # contexts are those of a thread
            assert dict(run_jobs(kinds, {0: ()}, executor=pool)) == {0: expected}
    assert kinds() == ("float32", "key<fry>")


def test_what_cannot_travel_is_named():
    with pytest.raises(TypeError, match="job 7 cannot be sent to another process"):
        list(run_jobs(square, {7: ((i for i in range(3)),)}, executor=LateExecutor()))


def test_warnings_of_workers_are_heard_once():
    def warns(x):
        warnings.warn("it is late", RuntimeWarning, stacklevel=1)
        return x

    heard = set()
    with pytest.warns(RuntimeWarning, match="job 'a job': it is late"):
        assert sent(warns, 1, heard=heard) == 1
    assert sent(warns, 2, heard=heard) == 2  # a second warning would be an error


def test_errors_arrive_with_their_fields():
    state = {"w": np.ones(2)}
    chain_error = restored(ChainError, ("a",), {"state": state})
    for error in (NonFiniteError("a", state=state, step=3, leaves=["w"]), chain_error):
        with pytest.raises(type(error), match="a") as caught:
            sent(fails, error)
        back = pickle.loads(pickle.dumps(caught.value))
        assert vars(back).keys() == vars(caught.value).keys() > {"state"}
        np.testing.assert_array_equal(back.state["w"], state["w"])

    class OwnError(Exception):
        def __init__(self, one, two):
            super().__init__(f"{one} and {two}")

    with pytest.raises(RuntimeError, match="OwnError: 1 and 2"):
        sent(lambda: fails(OwnError(1, 2)))


def fails(error):
    raise error


def test_an_error_names_its_job():
    with pytest.raises(ValueError, match="no square of 0") as caught:
        list(run_jobs(raises, {"first": (0,)}, executor=LateExecutor()))
    assert any("'first'" in note for note in caught.value.__notes__)


def test_what_is_no_executor_is_named():
    with pytest.raises(TypeError, match="executor"):
        list(run_jobs(square, JOBS, executor="processes"))  # pyright: ignore


def compiles(x):
    folder = jax.config.values["jax_compilation_cache_dir"]
    before = len(os.listdir(folder))
    y = jax.jit(lambda x: x * 41 + 1)(x)
    return folder, len(os.listdir(folder)) - before, float(y)


@pytest.mark.slow
def test_processes_share_what_they_compile():
    jobs = {i: (np.float32(i),) for i in range(2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        found = dict(run_jobs(compiles, jobs, num_processes=1))
    (folder, first, _), (same, second, value) = found[0], found[1]
    assert first > 0
    assert second == 0
    assert value == 42
    assert folder == same
    assert not os.path.exists(folder)


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
