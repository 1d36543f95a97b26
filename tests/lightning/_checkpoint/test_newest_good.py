"""Resuming where the newest checkpoint is damaged: rejected, or said aloud."""

import os
import warnings

import pytest

from jaxprob.lightning import (
    AtomicCheckpointIO,
    CheckpointCorruptError,
    newest_good_checkpoint,
)

from .._loop.test_resume import everything
from ..scene import bits, make_data, make_module, make_trainer

pytestmark = [
    # The Trainer that resumes writes no checkpoints of its own.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    module = make_module(8)
    trainer = make_trainer(
        folder, enable_checkpointing=True, callbacks=[everything(folder, 8)]
    )
    trainer.fit(module, make_data())
    files = {path.name: path.read_bytes() for path in folder.glob("*.ckpt")}
    assert sorted(files) == [
        "epoch=0-step=8.ckpt",
        "epoch=1-step=16.ckpt",
        "epoch=1-step=24.ckpt",
    ]
    return files, bits(module)


@pytest.fixture
def folder(tmp_path, trained):
    for second, (name, content) in enumerate(sorted(trained[0].items())):
        (tmp_path / name).write_bytes(content)
        os.utime(tmp_path / name, (second, second))
    return tmp_path


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    stamp = path.stat().st_mtime_ns
    path.write_bytes(bytes(data))
    os.utime(path, ns=(stamp, stamp))


@pytest.mark.slow
def test_the_newest_is_the_one_with_the_most_steps(folder):
    # `touch` makes no checkpoint newer.
    os.utime(folder / "epoch=0-step=8.ckpt")
    assert str(newest_good_checkpoint(folder)).endswith("epoch=1-step=24.ckpt")


def test_a_damaged_one_is_rejected_by_the_trainer_itself(folder):
    damage(folder / "epoch=1-step=24.ckpt")
    with pytest.raises(CheckpointCorruptError, match="step=24"):
        make_trainer(folder).fit(
            make_module(8), make_data(), ckpt_path=folder / "epoch=1-step=24.ckpt"
        )


def test_the_newest_good_one_resumes_to_the_bits_of_the_whole_run(folder, trained):
    damage(folder / "epoch=1-step=24.ckpt")
    with pytest.warns(UserWarning, match=r"skipped .*epoch=1-step=24\.ckpt"):
        path = newest_good_checkpoint(folder)
    assert path is not None
    assert path.endswith("epoch=1-step=16.ckpt")
    module = make_module(8)
    make_trainer(folder).fit(module, make_data(), ckpt_path=path)
    assert bits(module) == trained[1]


def test_an_old_damaged_one_is_no_news(folder):
    damage(folder / "epoch=0-step=8.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(newest_good_checkpoint(folder)).endswith("epoch=1-step=24.ckpt")


def test_a_folder_of_damaged_ones_is_no_new_beginning(folder):
    for path in folder.glob("*.ckpt"):
        damage(path)
    with pytest.raises(CheckpointCorruptError, match="every checkpoint"):
        newest_good_checkpoint(folder)


def test_weights_alone_are_nothing_to_go_on_from(tmp_path):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 9}, tmp_path / "weights.ckpt")
    assert str(newest_good_checkpoint(tmp_path)).endswith("weights.ckpt")
    whole = {"global_step": 3, "optimizer_states": []}
    io.save_checkpoint(whole, tmp_path / "whole.ckpt")
    assert str(newest_good_checkpoint(tmp_path)).endswith("whole.ckpt")


def test_an_empty_folder_is_a_beginning(tmp_path):
    assert newest_good_checkpoint(tmp_path) is None
    assert newest_good_checkpoint(tmp_path / "gone") is None
