"""Checkpoint files: whole or not at all, verified, one writer, typed errors."""

import contextlib
import gc
import os
import pathlib
import pickle
import random
import resource
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob.lightning import (
    AtomicCheckpointIO,
    CheckpointContentError,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointWriteError,
)
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ..scene import make_data, make_module, make_trainer, sealed


def content(fill=1.0, size=1000):
    return {"state_dict": {"w": torch.full((size,), fill)}, "global_step": 3}


@pytest.fixture
def writer():
    io = AtomicCheckpointIO()
    yield io
    io.teardown()


def test_what_is_written_is_read_and_torch_alone_reads_it_too(tmp_path, writer):
    path = tmp_path / "a.ckpt"
    writer.save_checkpoint(content(), path)
    for found in (writer.load_checkpoint(path), torch.load(path, weights_only=True)):
        assert torch.equal(found["state_dict"]["w"], content()["state_dict"]["w"])
        assert found["global_step"] == 3
    assert sealed(path)


def test_a_file_that_torch_wrote_is_accepted_unsealed(tmp_path, writer):
    path = tmp_path / "a.ckpt"
    torch.save(content(), path)
    assert not sealed(path)
    assert writer.load_checkpoint(path)["global_step"] == 3


def test_nothing_but_the_checkpoint_is_left_in_the_folder(tmp_path, writer):
    writer.save_checkpoint(content(), tmp_path / "a.ckpt")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".jaxprob-writer", "a.ckpt"]


@pytest.mark.parametrize("kind", ["truncate", "flip", "append"])
def test_every_mutant_is_detected(tmp_path, writer, kind):
    path, mutant = tmp_path / "a.ckpt", tmp_path / "mutant.ckpt"
    writer.save_checkpoint(content(), path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(150):
        if kind == "truncate":
            data = whole[: rng.randrange(len(whole))]
        elif kind == "append":
            data = whole + rng.randbytes(rng.randrange(1, 100))
        else:
            data = bytearray(whole)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        mutant.write_bytes(bytes(data))
        with pytest.raises(CheckpointCorruptError, match=r"mutant\.ckpt"):
            load_verified(mutant)


def test_without_the_seal_a_flipped_bit_of_a_weight_would_pass(tmp_path):
    path = tmp_path / "a.ckpt"
    torch.save(content(), path)
    data = bytearray(path.read_bytes())
    data[data.index(b"\x00\x00\x80\x3f" * 8) + 2] ^= 1
    path.write_bytes(bytes(data))
    assert not torch.equal(load_verified(path)["state_dict"]["w"], torch.ones(1000))


def test_a_hostile_file_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path / 'owned'}",))

    torch.save({"state_dict": Evil()}, tmp_path / "torch.ckpt")
    with pytest.raises(CheckpointContentError, match=r"posix\.system"):
        load_verified(tmp_path / "torch.ckpt")
    (tmp_path / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": Evil()}))
    with pytest.raises(CheckpointCorruptError):
        load_verified(tmp_path / "pickle.ckpt")
    assert not (tmp_path / "owned").exists()


def test_an_archive_that_unpacks_to_more_than_it_holds_is_rejected(tmp_path):
    import zipfile

    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10**7)
    with pytest.raises(CheckpointCorruptError, match="claims"):
        load_verified(path)


def test_a_full_disk_is_an_error_and_the_old_file_stands(tmp_path, writer):
    path = tmp_path / "a.ckpt"
    writer.save_checkpoint(content(1.0), path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointWriteError, match=r"a\.ckpt was not written"):
            writer.save_checkpoint(content(2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert load_verified(path)["state_dict"]["w"][0] == 1.0
    assert not list(tmp_path.glob("*partial*"))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, writer):
    # A file in the place of a folder stops root too, which permissions do not.
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointWriteError, match="file"):
        writer.save_checkpoint(content(), tmp_path / "file" / "a.ckpt")


OTHER = """
import sys
sys.path.insert(0, {root!r})
from jaxprob.lightning import AtomicCheckpointIO
import torch
io = AtomicCheckpointIO()
try:
    io.save_checkpoint({{"a": torch.ones(3)}}, {path!r})
except Exception as error:
    print(type(error).__name__, error)
else:
    print("written")
"""


def other_process(path):
    root = str(pathlib.Path(__file__).parents[3])
    code = OTHER.format(root=root, path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


@contextlib.contextmanager
def locked(folder):
    """Another writer in a folder: a lock belongs to an open file, not to a process."""
    with FileLock(folder / ".jaxprob-writer", blocking=False):
        yield


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_fit_into_a_folder_of_another_run_is_rejected_before_its_first_step(tmp_path):
    trainer = make_trainer(
        tmp_path, enable_checkpointing=True, callbacks=[ModelCheckpoint(tmp_path)]
    )
    module = make_module(8)
    with locked(tmp_path), pytest.raises(CheckpointLockedError, match="another folder"):
        trainer.fit(module, make_data())
    assert trainer.global_step == 0


@pytest.mark.parametrize("hook", ["on_train_start", "on_fit_start"])
def test_a_fit_that_fails_lets_go_of_its_folder(tmp_path, hook):
    class Fails(pl.Callback):
        def on_train_start(self, trainer, module):
            raise RuntimeError("on purpose")

    def fail(*args):
        raise RuntimeError("on purpose, too")

    failing = Fails()
    setattr(failing, hook, fail)
    trainer = make_trainer(
        tmp_path,
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(tmp_path), failing],
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.fit(make_module(8), make_data())
    del trainer, failing
    gc.collect()
    with locked(tmp_path):
        pass


@pytest.mark.slow
def test_a_second_writer_is_rejected_while_the_first_runs(tmp_path):
    first = AtomicCheckpointIO()
    first.begin([tmp_path])
    answer = other_process(tmp_path / "b.ckpt")
    assert CheckpointLockedError.__name__ in answer
    assert str(os.getpid()) in answer
    first.teardown()
    assert "written" in other_process(tmp_path / "b.ckpt")


def test_outside_of_a_fit_a_folder_is_held_only_while_a_file_is_written(tmp_path):
    AtomicCheckpointIO().save_checkpoint(content(), tmp_path / "a.ckpt")
    with locked(tmp_path):
        pass


def test_a_writer_that_is_forgotten_lets_go_of_its_folder(tmp_path):
    AtomicCheckpointIO().begin([tmp_path])
    gc.collect()
    with locked(tmp_path):
        pass


@pytest.mark.parametrize("length", [1, 250])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, writer, length):
    path = tmp_path / ("x" * length + ".ckpt")
    writer.save_checkpoint(content(), path)
    assert load_verified(path)["global_step"] == 3


def test_a_name_that_is_longer_is_a_typed_error(tmp_path, writer):
    with pytest.raises(CheckpointWriteError, match="File name too long"):
        writer.save_checkpoint(content(), tmp_path / ("x" * 256))


def test_what_a_killed_writer_left_is_collected(tmp_path):
    orphan = tmp_path / ".last.ckpt.0123.jaxprob-partial"
    orphan.write_bytes(b"half")
    io = AtomicCheckpointIO()
    io.save_checkpoint(content(), tmp_path / "a.ckpt")
    io.teardown()
    assert not orphan.exists()


def test_all_errors_are_checkpoint_errors():
    for error in (CheckpointWriteError, CheckpointCorruptError, CheckpointLockedError):
        assert issubclass(error, CheckpointError)


def test_a_missing_file_is_named(tmp_path, writer):
    with pytest.raises(FileNotFoundError, match=r"gone\.ckpt"):
        writer.load_checkpoint(tmp_path / "gone.ckpt")
