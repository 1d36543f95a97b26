"""Errors inside a step of `fit` and of a Trainer: checks, callbacks, memory."""

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import equinox as eqx
import pytorch_lightning as pl

import jaxprob
from jaxprob.lightning import newest_good_checkpoint
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ._children import Child
from ._problem import (
    EPOCHS,
    PER_EPOCH,
    Problem,
    SensorError,
    numbers,
    same,
    saves_on_exception,
)
from ._run import quiet

KINDS = ("check", "callback", "memory")
COUNTS = ("errors", "own_error", "readable", "right_step", "saved", "same_bits")
STEPS = EPOCHS * PER_EPOCH


def error_campaign(runs: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Counts by path and size of network; each is a process of its own.

    Memory runs out in the large network only.
    """
    plan = [(path, size) for size in ("small", "large") for path in PATHS]
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
    problem, rng = Problem(size, asks=True), random.Random(seed)
    counts = dict.fromkeys(COUNTS, 0)
    kinds = KINDS if size == "large" else KINDS[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = PATHS[path](problem, folder, counts, None)
        assert not counts["errors"], "the undisturbed run failed"
        for index in range(runs):
            problem.alarm.kind = kinds[index % len(kinds)]
            problem.alarm.step = rng.randrange(1, STEPS)
            PATHS[path](problem, folder / "run", counts, whole)
            shutil.rmtree(folder / "run", ignore_errors=True)
    print(json.dumps(counts), flush=True)


class Feed:
    """Batches of each epoch, which exhaust the memory when it is time."""

    def __init__(self, problem):
        self.problem = problem

    def __iter__(self):
        alarm = self.problem.alarm
        for epoch in range(EPOCHS):
            loader = jaxprob.ArrayLoader(
                self.problem.data, batch_size=8, shuffle=True, seed=epoch
            )
            for index, batch in enumerate(loader):
                step = epoch * PER_EPOCH + index
                if alarm.kind == "memory" and step == alarm.step:
                    alarm.exhaust_memory()
                yield batch


class Exhaust(pl.Callback):
    sees_every_batch = False

    def __init__(self, problem):
        self.problem = problem

    def on_train_batch_start(self, trainer, *_) -> None:
        alarm = self.problem.alarm
        if alarm.kind == "memory" and trainer.global_step >= alarm.step:
            alarm.exhaust_memory()


def _is_own(error, alarm):
    if alarm.kind == "callback":
        return type(error) is SensorError and str(error) == f"step {alarm.step}"
    if alarm.kind == "check":
        own = isinstance(error, eqx.EquinoxRuntimeError)
        return own and str(error) == "a sensor is broken"
    # Where there is none to call the host with, XLA's error tells of a MemoryError.
    texts = ("allocat", "RESOURCE_EXHAUSTED", "MemoryError")
    return any(text in repr(error) for text in texts)


def _note(counts, error, alarm, state, slack):
    """Count one error and the state after it, once there is memory again.

    **Arguments:**

    - `slack`: steps before the failing one that the state may lack for want of memory.
    """
    counts["errors"] += 1
    own = _is_own(error, alarm)
    counts["own_error"] += own
    if not own:
        print(alarm.kind, alarm.step, repr(error), file=sys.stderr)
    step, slack = alarm.step, slack if alarm.kind == "memory" else 0
    alarm.disarm()
    numbers(state())
    counts["readable"] += 1
    counts["right_step"] += step - slack <= int(state().step) <= step


def _in_fit(problem, folder, counts, whole):
    feed, alarm = Feed(problem), problem.alarm
    try:
        return problem.fit(feed)
    except Exception as error:
        caught: Any = error
    if alarm.kind == "memory" and not hasattr(caught, "state"):
        alarm.disarm()
        raise AssertionError("the state was lost for want of memory") from caught
    # The copy that is handed over is as old as the run, which is short.
    _note(counts, caught, alarm, lambda: caught.state, slack=STEPS)
    counts["saved"] += int(caught.state.step) == caught.step
    expected = problem.fit(feed, num_steps=caught.step) if caught.step else None
    counts["same_bits"] += expected is None or same(caught.state, expected)
    return None


def _in_trainer(problem, folder, counts, whole):
    module, alarm = problem.module(), problem.alarm
    trainer = problem.trainer(folder, saves_on_exception(folder), Exhaust(problem))
    try:
        trainer.fit(module, problem.loaders())
        return module.state
    except Exception as error:
        caught = error
    memory, slack = alarm.kind == "memory", problem.steps_per_dispatch
    _note(counts, caught, alarm, lambda: module.state, slack)
    step = int(module.state.step)
    if not step:
        counts["saved"] += 1
        counts["same_bits"] += same(module.state, problem.module().state)
        return None
    last = newest_good_checkpoint(folder)
    if memory:
        counts["saved"] += _all_true(folder, step, caught)
    else:
        saved = last is not None and load_verified(last)["global_step"] == step
        counts["saved"] += saved
    module = problem.module()
    again = problem.trainer(folder, Exhaust(problem))
    again.fit(module, problem.loaders(), ckpt_path=last)
    assert again.global_step == STEPS, again.global_step
    counts["same_bits"] += same(module.state, whole)
    return None


def _all_true(folder, step, error):
    """Return whether all checkpoints were written and hold as many steps as they count.

    The checkpoint of the exception is older than the state. There is none if another
    checkpoint of the same step exists.
    """
    found = [load_verified(path) for path in folder.glob("*.ckpt")]
    told = [(int(c["state_dict"]["run.step"]), c["global_step"]) for c in found]
    failed = any("wrote no checkpoint" in note for note in error.__notes__)
    return not failed and all(one == other <= step for one, other in told)


PATHS = {"fit": _in_fit, "lightning": _in_trainer}
