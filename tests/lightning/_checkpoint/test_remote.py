"""URLs go through fsspec, and where that cannot be they are rejected by name."""

import fsspec
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob import bnn, datasets
from jaxprob.lightning import (
    AtomicCheckpointIO,
    CheckpointCorruptError,
    CheckpointError,
    CheckpointWriteError,
    LearnerModule,
    SaveOnSignal,
    export_safetensors,
    import_safetensors,
    newest_good_checkpoint,
)

from ..scene import (
    bits,
    bits_of,
    make_data,
    make_learner,
    make_module,
    make_trainer,
    network,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A folder in memory; nothing may appear in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield "memory://" + tmp_path.name
    fsspec.filesystem("memory").rm("/" + tmp_path.name, recursive=True)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def elsewhere(tmp_path_factory):
    return tmp_path_factory.mktemp("elsewhere")


def test_a_run_behind_a_url_resumes_to_the_same_bits(url, elsewhere):
    class Stops(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, module, *args):
            if trainer.global_step >= 8:
                trainer.save_checkpoint(f"{url}/interrupted.ckpt")
                raise SystemExit(143)

    whole = make_module(8)
    make_trainer(elsewhere).fit(whole, make_data())
    saving = ModelCheckpoint(url, every_n_train_steps=4, save_top_k=-1)
    trainer = make_trainer(
        elsewhere, enable_checkpointing=True, callbacks=[saving, Stops()]
    )
    with pytest.raises(SystemExit):
        trainer.fit(make_module(8), make_data())
    path = SaveOnSignal.latest(url)
    assert path == newest_good_checkpoint(url)
    assert path is not None
    assert path.startswith("memory://")
    module = make_module(8)
    make_trainer(elsewhere).fit(module, make_data(), ckpt_path=path)
    assert bits(module) == bits(whole)
    parts = {"learner": make_learner(), "model": network()}
    assert LearnerModule.load_from_checkpoint(path, **parts)._engine.run.step == 8
    fs = fsspec.filesystem("memory")
    assert not [name for name in fs.find(url) if "partial" in name]


def test_a_damaged_file_behind_a_url_is_detected_and_skipped(url):
    io = AtomicCheckpointIO()
    for step in (1, 2):
        io.save_checkpoint({"global_step": step}, f"{url}/{step}.ckpt")
    fs = fsspec.filesystem("memory")
    data = bytearray(fs.cat_file(f"{url}/2.ckpt"))
    data[100] ^= 1
    fs.pipe_file(f"{url}/2.ckpt", bytes(data))
    with pytest.raises(CheckpointCorruptError, match=r"memory://.*2\.ckpt"):
        io.load_checkpoint(f"{url}/2.ckpt")
    with pytest.warns(UserWarning, match=r"skipped .*2\.ckpt"):
        assert str(newest_good_checkpoint(url)).endswith("1.ckpt")
    io.remove_checkpoint(f"{url}/2.ckpt")
    io.remove_checkpoint(f"{url}/2.ckpt")
    assert [name.split("/")[-1] for name in fs.find(url)] == ["1.ckpt"]


def test_a_failed_upload_leaves_the_old_file(url, monkeypatch):
    io = AtomicCheckpointIO()
    io.save_checkpoint({"global_step": 1}, f"{url}/a.ckpt")

    def full(self, *args, **kwargs):
        raise OSError("quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(type(fsspec.filesystem("memory")), "mv", full)
        with pytest.raises(CheckpointWriteError, match="quota exceeded"):
            io.save_checkpoint({"global_step": 2}, f"{url}/a.ckpt")
    assert io.load_checkpoint(f"{url}/a.ckpt") == {"global_step": 1}
    assert len(fsspec.filesystem("memory").find(url)) == 1


def test_weights_go_to_a_url_and_come_back(url):
    export_safetensors(network(), f"{url}/a.safetensors")
    assert bits_of(import_safetensors(network(5), f"{url}/a.safetensors")) == bits_of(
        network()
    )


def test_an_empty_url_is_a_beginning_and_a_file_is_no_folder(url):
    assert newest_good_checkpoint(url) is None
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, f"{url}/a.ckpt")
    with pytest.raises(NotADirectoryError, match="give the folder"):
        newest_good_checkpoint(f"{url}/a.ckpt")


def test_a_file_system_that_is_not_installed_is_named():
    with pytest.raises(CheckpointError, match="nosuch://"):
        newest_good_checkpoint("nosuch://bucket")


def test_file_urls_are_local_paths(tmp_path):
    AtomicCheckpointIO().save_checkpoint({"global_step": 1}, f"file://{tmp_path}/a")
    assert newest_good_checkpoint(f"file://{tmp_path}", "a") == str(tmp_path / "a")


LOCAL = {
    "load_posterior": lambda url: bnn.load_posterior(url, model=None),
    "uci": lambda url: datasets.uci("yacht", root=url),
    "mnist": datasets.mnist,
}


@pytest.mark.parametrize("name", LOCAL)
def test_a_function_of_local_files_refuses_a_url(name):
    call = LOCAL[name]
    with pytest.raises(ValueError, match=r"memory://x.*is a URL"):
        call("memory://x")


def test_a_url_that_went_through_pathlib_is_rejected():
    from pathlib import Path

    with pytest.raises(ValueError, match="'s3://bucket/run'"):
        newest_good_checkpoint(Path("s3://bucket/run"))
