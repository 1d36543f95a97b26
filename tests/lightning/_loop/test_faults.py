"""The fault campaign of `benchmarks.faults`, in short; signals and exit codes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
import pytorch_lightning as pl
import torch

from benchmarks.faults._mutants import mutant_campaign
from jaxprob.lightning import SaveOnSignal

from ..scene import bits, make_data, make_module, make_trainer

ROOT = pathlib.Path(__file__).parents[3]


def campaign(*options):
    """A short one, in a process that may fork: nothing has been computed in it."""
    command = [sys.executable, "-m", "benchmarks.faults", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, cwd=ROOT, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kills_and_full_disks_lose_no_save_and_hostile_files_run_no_code():
    found = campaign(
        *("--part", "kills", "--part", "disks", "--part", "hostile"),
        *("--runs", "6", "--only", "ours"),
    )
    kills, disks = found.pop("kills"), found.pop("disks")
    assert kills["saves"] >= kills["kills"] == 6
    assert kills["unreadable"] == kills["lost"] == 0
    assert kills["orphans"] <= 1
    assert disks["typed"] == 6
    assert disks["old_file_lost"] == 0
    for kind, counts in found.items():
        assert counts["typed"] == counts["made"], kind
        assert counts["code_run"] == counts["memory"] == 0, kind


@pytest.mark.slow
def test_signals_at_random_instants_lose_no_state():
    code = (
        "import json; from benchmarks.faults import _interrupts as i; "
        "found = i.interrupt_campaign(6, 1, ('lightning', 'save_on_signal'), ['small'])"
        "; print(json.dumps(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 2
    for path, counts in found.items():
        to_save = counts.pop("to_save")
        assert counts.pop("saved") == to_save, path
        assert set(counts.values()) == {3}, path


@pytest.mark.slow
def test_a_training_killed_again_and_again_ends_in_the_same_bits():
    counts = campaign("--part", "training", "--runs", "3")["training"]
    assert counts["kills"] == 3
    assert counts["resumes"] >= 3
    assert counts["same_hash"] == counts["trainings"]
    assert counts["backwards"] == 0


@pytest.mark.slow
def test_every_mutant_of_a_checkpoint_is_detected():
    for kind, counts in mutant_campaign(100).items():
        assert counts["detected"] == counts["made"], kind


CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}


class Kick(SaveOnSignal):
    """Sends itself a signal in some hook, as a scheduler would from outside."""

    sees_every_batch = False

    def __init__(self, folder, number, hook, step):
        super().__init__(folder)
        self.sent = False
        inherited = getattr(self, hook, None)

        def kick(trainer, *args, **kwargs):
            if trainer.global_step >= step and not self.sent:
                self.sent = True
                os.kill(os.getpid(), number)
            if inherited is not None:
                inherited(trainer, *args, **kwargs)

        setattr(self, hook, kick)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    module = make_module(8)
    make_trainer(tmp_path_factory.mktemp("whole"), max_epochs=3).fit(
        module, make_data()
    )
    return bits(module)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES, ids=lambda n: signal.Signals(n).name)
@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_validation_batch_start"])
def test_a_signal_saves_and_exits_and_the_run_goes_on_to_the_same_bits(
    tmp_path, whole, number, hook
):
    before = signal.getsignal(number)
    trainer = make_trainer(
        tmp_path, max_epochs=3, callbacks=[Kick(tmp_path, number, hook, 10)]
    )
    with pytest.raises(SystemExit) as left:
        trainer.fit(make_module(8), make_data())
    assert left.value.code == CODES[number]
    assert signal.getsignal(number) == before

    module = make_module(8)
    make_trainer(tmp_path, max_epochs=3).fit(
        module, make_data(), ckpt_path=SaveOnSignal.latest(tmp_path)
    )
    assert bits(module) == whole


class Late(pl.Callback):
    """Sends a signal when the last step and all that is done after it are over."""

    def on_train_end(self, trainer, pl_module):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_a_signal_after_the_last_step_is_not_lost(tmp_path, whole):
    trainer = make_trainer(
        tmp_path, max_epochs=3, callbacks=[SaveOnSignal(tmp_path), Late()]
    )
    with pytest.raises(SystemExit) as left:
        trainer.fit(make_module(8), make_data())
    assert left.value.code == 143
    module = make_module(8)
    path = SaveOnSignal.latest(tmp_path)
    make_trainer(tmp_path, max_epochs=3).fit(module, make_data(), ckpt_path=path)
    assert bits(module) == whole


def test_a_signal_during_predict_exits_and_saves_nothing(tmp_path):
    kick = Kick(tmp_path, signal.SIGTERM, "on_predict_batch_start", 0)
    with pytest.raises(SystemExit) as left:
        make_trainer(tmp_path, callbacks=[kick]).predict(make_module(8), make_data())
    assert left.value.code == 143
    assert SaveOnSignal.latest(tmp_path) is None


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.lightning.scene import make_data, make_module, make_trainer
from jaxprob.lightning import SaveOnSignal
trainer = make_trainer({folder!r}, max_epochs=-1, callbacks=[SaveOnSignal({folder!r})])
print("begin", flush=True)
trainer.fit(make_module(8), make_data())
"""


@pytest.mark.slow
def test_a_process_that_is_terminated_exits_with_143_and_a_checkpoint(tmp_path):
    code = SCRIPT.format(root=str(ROOT), folder=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begin\n"
    time.sleep(12)  # compiled and under way
    process.send_signal(signal.SIGTERM)
    timer = threading.Timer(60, process.kill)
    timer.start()
    said = process.communicate()[0]
    timer.cancel()
    assert process.returncode == 143
    assert "SIGTERM: saved" in said
    checkpoint = torch.load(tmp_path / SaveOnSignal.NAME, weights_only=True)
    assert checkpoint["global_step"] > 0
