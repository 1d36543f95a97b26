"""Checkpoint files: whole or not at all, verified, one writer, typed errors."""

import os
import pickle
import random
import resource
import subprocess
import sys

import pytest
import torch

from jaxprob.lightning import (
    AtomicCheckpointIO,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointLockedError,
    CheckpointWriteError,
)
from jaxprob.lightning._checkpoint_io import load_verified
from jaxprob.lightning._seal import check_seal


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
    assert check_seal(path)


def test_a_file_that_torch_wrote_is_accepted_unsealed(tmp_path, writer):
    path = tmp_path / "a.ckpt"
    torch.save(content(), path)
    assert not check_seal(path)
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

    for name, write in {
        "torch.ckpt": lambda p: torch.save({"state_dict": Evil()}, p),
        "pickle.ckpt": lambda p: p.write_bytes(pickle.dumps({"state_dict": Evil()})),
    }.items():
        write(tmp_path / name)
        with pytest.raises(CheckpointCorruptError):
            load_verified(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_an_archive_that_unpacks_to_more_than_it_holds_is_refused(tmp_path):
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
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    code = OTHER.format(root=root, path=str(path))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_second_writer_is_refused_while_the_first_runs(tmp_path):
    first = AtomicCheckpointIO()
    first.save_checkpoint(content(), tmp_path / "a.ckpt")
    answer = other_process(tmp_path / "b.ckpt")
    assert CheckpointLockedError.__name__ in answer
    assert str(os.getpid()) in answer
    first.teardown()
    assert "written" in other_process(tmp_path / "b.ckpt")


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
