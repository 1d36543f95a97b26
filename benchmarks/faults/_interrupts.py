"""Signals at random instants of `fit` and of a Trainer: is any state lost?"""

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from jaxprob.lightning import SaveOnSignal, newest_good_checkpoint
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ._children import Child
from ._problem import EPOCHS, PER_EPOCH, Problem, numbers, same, saves_on_exception
from ._run import quiet

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}
PATHS = ("fit", "lightning", "save_on_signal")
COUNTS = ("interrupts", "readable", "own_error", "to_save", "saved", "same_bits")


class Told(BaseException):
    """Raised by a handler of the user's."""


def _raise(number, frame):
    raise Told(number)


def interrupt_campaign(
    runs: int,
    seed: int = 0,
    paths: tuple[str, ...] = PATHS,
    sizes: tuple[str, ...] = ("small", "large"),
) -> dict[str, dict[str, int]]:
    """Counts by path and size of network; each is a process of its own."""
    plan = [(path, size) for size in sizes for path in paths]
    found = {}
    for index, (path, size) in enumerate(plan):
        share = (runs + len(plan) - 1 - index) // len(plan)
        child = Child(_work, path, size, share, seed + index)
        code, said = child.end()
        if code:
            raise RuntimeError(f"{path}, {size}: run with FAULTS_VERBOSE=1")
        found[f"{path}, {size}"] = json.loads(said[-1])
    return found


def _work(path, size, runs, seed):
    quiet()
    # A shell starts background jobs with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in NUMBERS[1:]:
        signal.signal(number, _raise)
    problem, rng = Problem(size, asks=False), random.Random(seed)
    counts = dict.fromkeys(COUNTS, 0)
    run = _in_fit if path == "fit" else _in_trainer
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saves = path == "save_on_signal"
        whole = None
        for _ in range(2):  # the second one compiles nothing
            begin = time.monotonic()
            whole = run(problem, folder / "whole", saves, None, counts, None)
            seconds = time.monotonic() - begin
            assert whole is not None
        while counts["interrupts"] < runs:
            number = NUMBERS[counts["interrupts"] % len(NUMBERS)]
            sender = number, rng.uniform(0.0, seconds)
            run(problem, folder / "run", saves, sender, counts, whole)
            shutil.rmtree(folder / "run", ignore_errors=True)
    print(json.dumps(counts), flush=True)


def _disturbed(work, sender) -> BaseException | None:
    """The exception that ended the work; `None` if it ended before the signal came."""
    if sender is None:
        work()
        return None
    number, delay = sender
    timer = threading.Timer(delay, os.kill, (os.getpid(), number))
    ended = []
    try:
        try:
            timer.start()
            work()
            ended.append(True)
        finally:
            timer.cancel()
            timer.join()
    except BaseException as error:
        return None if ended else error
    return None


def _in_fit(problem, folder, saves, sender, counts, whole):
    states = []
    error: Any = _disturbed(lambda: states.append(problem.fit()), sender)
    if error is None or not hasattr(error, "state"):
        # The run had ended, or not begun: its state is the model that was given.
        return states[0] if states else None
    counts["interrupts"] += 1
    kind: Any = KeyboardInterrupt if sender[0] == signal.SIGINT else Told
    counts["own_error"] += type(error) is kind
    numbers(error.state)
    counts["readable"] += 1
    counts["to_save"] += 1
    counts["saved"] += int(error.state.step) == error.step
    expected = problem.fit(num_steps=error.step) if error.step else error.state
    counts["same_bits"] += same(error.state, expected)
    return None


def _in_trainer(problem, folder, saves, sender, counts, whole):
    module = problem.module()
    callback = SaveOnSignal(folder) if saves else saves_on_exception(folder)
    trainer = problem.trainer(folder, callback)
    error = _disturbed(lambda: trainer.fit(module, problem.loaders()), sender)
    if error is None:
        return module.state
    counts["interrupts"] += 1
    own = _is_own(error, sender[0], saves)
    counts["own_error"] += own
    if not own:
        traceback.print_exception(error)
    numbers(module.state)
    counts["readable"] += 1
    step = int(module.state.step)
    if step or saves:
        counts["to_save"] += 1
        last = newest_good_checkpoint(folder)
        counts["saved"] += (
            last is not None and load_verified(last)["global_step"] == step
        )
        module = problem.module()
        again = problem.trainer(folder)
        again.fit(module, problem.loaders(), ckpt_path=last)
        assert again.global_step == EPOCHS * PER_EPOCH, again.global_step
        counts["same_bits"] += same(module.state, whole)
    else:
        counts["same_bits"] += same(module.state, problem.module().state)
    return None


def _is_own(error, number, saves):
    if saves:
        return isinstance(error, SystemExit) and error.code == CODES[number]
    if number == signal.SIGINT:  # Lightning makes an exit of it, where it has begun
        exits = isinstance(error, SystemExit)
        return isinstance(error.__context__ if exits else error, KeyboardInterrupt)
    return type(error) is Told
