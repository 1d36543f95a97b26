"""A checkpoint holds plain data: checked when it is written, told apart when read."""

import collections
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob.lightning import (
    ArrayDataModule,
    AtomicCheckpointIO,
    CheckpointContentError,
    CheckpointCorruptError,
    LearnerModule,
    newest_good_checkpoint,
)
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ..scene import make_data, make_learner, make_module, make_trainer, network

EXACT = {
    "float": (np.float64(0.1), 0.1),
    "single": (np.float32(0.1), 0.10000000149011612),
    "half": (np.float16(1 / 3), 0.333251953125),
    "int": (np.int64(2**62 + 1), 2**62 + 1),
    "unsigned": (np.uint64(2**64 - 1), 2**64 - 1),
    "bool": (np.bool_(True), True),
    "text": (np.str_("a"), "a"),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_numpy_scalar_becomes_the_equal_number(tmp_path, name):
    scalar, number = EXACT[name]
    path = tmp_path / "a.ckpt"
    given: dict[str, Any] = {
        "callbacks": collections.OrderedDict(best=[(scalar, 1)], same={2})
    }
    AtomicCheckpointIO().save_checkpoint(given, path)
    found = load_verified(path)["callbacks"]["best"][0][0]
    assert found == number
    assert type(found) is type(number)
    assert given["callbacks"]["best"][0][0] is scalar


OBJECTS = {
    "path": (pathlib.Path("a"), r"PosixPath.*Keep str\(path\)"),
    "array": (np.ones(3), r"ndarray.*torch\.from_numpy"),
    "jax": (jnp.ones(()), r"float\(x\)"),
    "function": (lambda: 0, "function.*numbers, strings"),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_rejected_on_saving_by_the_name_of_its_entry(tmp_path, name):
    value, match = OBJECTS[name]
    content = {"callbacks": {"Best": {"list": [1.0, value]}}, "epoch": 3}
    where = r"\['callbacks'\]\['Best'\]\['list'\]\[1\] is a "
    with pytest.raises(CheckpointContentError, match=f"{where}.*{match}"):
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / "a.ckpt")
    assert not list(tmp_path.glob("*.ckpt"))


def test_objects_can_be_kept_by_name_and_are_then_read_by_name(tmp_path):
    path = tmp_path / "a.ckpt"
    content = {"where": pathlib.Path("a"), "global_step": 3}
    AtomicCheckpointIO(plain=False).save_checkpoint(content, path)
    io = AtomicCheckpointIO()
    with pytest.raises(CheckpointContentError, match=r"intact.*weights_only=False"):
        io.load_checkpoint(path)
    assert io.load_checkpoint(path, weights_only=False) == content


def test_a_module_of_another_writer_loads_with_weights_only_false(tmp_path):
    path = tmp_path / "a.ckpt"
    module = make_module(8)
    content = {"state_dict": module.state_dict(), "best": np.float64(1.0)}
    content["pytorch-lightning_version"] = pl.__version__
    torch.save(content, path)
    parts = {"learner": make_learner(), "model": network(3)}
    with pytest.raises(CheckpointContentError, match="intact"):
        LearnerModule.load_from_checkpoint(path, **parts)
    loaded = LearnerModule.load_from_checkpoint(path, weights_only=False, **parts)
    found = loaded.state_dict()
    assert all(torch.equal(found[k], v) for k, v in module.state_dict().items())


def test_a_newer_file_of_objects_is_skipped_aloud(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, tmp_path / "a.ckpt")
    torch.save({"global_step": 4, "p": pathlib.Path("a")}, tmp_path / "b.ckpt")
    with pytest.warns(UserWarning, match=r"b\.ckpt is intact"):
        assert newest_good_checkpoint(tmp_path) == str(tmp_path / "a.ckpt")


def test_hyperparameters_are_looked_at_before_the_first_step(tmp_path):
    class Keeps(LearnerModule):
        def __init__(self, where=pathlib.Path("a")):
            super().__init__(make_learner(), network())
            self.save_hyperparameters()

    trainer = make_trainer(
        tmp_path,
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(tmp_path)],
    )
    with pytest.raises(CheckpointContentError, match=r"\['where'\] is a .*PosixPath"):
        trainer.fit(Keeps(), make_data())
    assert trainer.global_step == 0


def test_a_data_module_verifies_what_it_reads(tmp_path):
    path = tmp_path / "a.ckpt"
    path.write_bytes(b"cut short")
    with pytest.raises(CheckpointCorruptError, match="cut short"):
        ArrayDataModule.load_from_checkpoint(path)


def test_a_home_folder_is_no_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    AtomicCheckpointIO().save_checkpoint({"global_step": 3}, "~/a.ckpt")
    assert newest_good_checkpoint("~") == str(tmp_path / "a.ckpt")


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_every_stage_verifies_what_it_reads(tmp_path, stage):
    path = tmp_path / "a.ckpt"
    content = {"state_dict": make_module(8).state_dict(), "loops": None}
    content["pytorch-lightning_version"] = pl.__version__
    AtomicCheckpointIO().save_checkpoint(content, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    trainer = make_trainer(tmp_path)
    with pytest.raises(CheckpointCorruptError, match="has changed since"):
        getattr(trainer, stage)(make_module(8), make_data(), ckpt_path=path)
