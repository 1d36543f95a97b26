"""Two processes are one run: the same numbers, one writer, and an end to waiting."""

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from jaxprob.lightning import SaveOnSignal

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
HEARTBEAT = 5  # seconds


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(count, folder, steps, *checkpoint):
    """All processes of a run, their output in files."""
    port, processes = free_port(), []
    folder.mkdir(exist_ok=True)
    for rank in range(count):
        command = [sys.executable, "-m", "tests.lightning._trainer.process_worker"]
        arguments = [rank, count, port, HEARTBEAT, folder, steps, *checkpoint]
        with (folder / f"out{rank}.txt").open("w") as out:
            processes.append(
                subprocess.Popen(
                    [*command, *map(str, arguments)],
                    cwd=ROOT,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
                )
            )
    return processes


def output(folder, rank):
    return (folder / f"out{rank}.txt").read_text()


def said(folder, rank):
    """What a process printed, without what the library for collectives tells."""
    lines = output(folder, rank).splitlines()
    return [line for line in lines if not line.startswith(("[Gloo]", "I0", "W0"))]


def losses(folder):
    with (folder / "log/version_0/metrics.csv").open() as table:
        rows = list(csv.DictReader(table))
    pairs = [(int(r["step"]), r["train_loss_step"]) for r in rows]
    return {step: float(value) for step, value in pairs if value}


def finish(processes, folder, timeout=120):
    for rank, process in enumerate(processes):
        assert process.wait(timeout) == 0, output(folder, rank)


def wait_for(path, process):
    until = time.monotonic() + 120
    while not path.exists() and time.monotonic() < until:
        assert process.poll() is None, output(path.parent, 0)
        time.sleep(0.2)


def goes_on_alone(checkpoint, folder):
    """One process continues what two began."""
    step = int(torch.load(checkpoint, weights_only=True)["global_step"])
    finish(start(1, folder, step + 30, checkpoint), folder)
    assert f"done {step + 30}" in output(folder, 0)


def test_two_processes_give_the_losses_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    alone, together = start(1, one, 50), start(2, two, 50)
    finish(alone, one)
    finish(together, two)
    expected, found = losses(one), losses(two)
    assert sorted(found) == sorted(expected) == list(range(50))
    # Relative to the size of a loss at the start; every one of 50 steps.
    np.testing.assert_allclose(
        [found[i] for i in range(50)], [expected[i] for i in range(50)], atol=1e-6
    )
    # One writer: the same files as one process leaves, and a silent second process.
    names = [{p.name for p in folder.rglob("*.ckpt")} for folder in (one, two)]
    assert names[0] == names[1]
    assert said(two, 1) == ["done 50"]


def test_a_killed_process_ends_the_other_and_the_run_goes_on_with_one(tmp_path):
    first, second = start(2, tmp_path, 10**6)
    saved = tmp_path / "last.ckpt"
    wait_for(saved, first)
    second.send_signal(signal.SIGKILL)
    second.wait()
    began = time.monotonic()
    assert first.wait(HEARTBEAT + 30) != 0
    print(f"the other process ended after {time.monotonic() - began:.1f} s")
    text = output(tmp_path, 0)
    assert any(word in text for word in ("heartbeat", "Gloo", "gloo", "unhealthy"))
    goes_on_alone(saved, tmp_path / "alone")


def test_processes_of_which_one_is_told_to_stop_save_and_leave_together(tmp_path):
    first, second = start(2, tmp_path, 10**6)
    wait_for(tmp_path / "last.ckpt", first)
    second.send_signal(signal.SIGTERM)
    for rank, process in enumerate((first, second)):
        assert process.wait(60) == 143, output(tmp_path, rank)
    assert "SIGTERM: saved" in output(tmp_path, 0)
    assert not said(tmp_path, 1)
    goes_on_alone(tmp_path / SaveOnSignal.NAME, tmp_path / "alone")
