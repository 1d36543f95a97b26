"""`ModelCheckpoint` in all its options: which files are left, and what is in them."""

import datetime

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint

from ..scene import bits, make_data, make_module, make_trainer

pytestmark = [
    # The Trainer that resumes writes no checkpoints of its own.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    # `OnExceptionCheckpoint` alone makes Lightning ask where to resume from.
    pytest.mark.filterwarnings(r"ignore:`?\.fit\(ckpt_path="),
]


def fit(folder, saving, module=None, callbacks=(), **options):
    trainer = make_trainer(
        folder, enable_checkpointing=True, callbacks=[saving, *callbacks], **options
    )
    trainer.fit(make_module(8) if module is None else module, make_data())
    return trainer


def names(folder):
    return sorted(path.name for path in folder.glob("*.ckpt"))


class Keep(pl.Callback):
    """The validation loss at each step at which there was one."""

    def __init__(self):
        self.values = {}

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            value = float(trainer.callback_metrics["val_loss"])
            self.values[trainer.global_step] = value


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_best_k_are_those_of_the_monitored_metric(tmp_path, mode):
    keep = Keep()
    saving = ModelCheckpoint(
        tmp_path, "{step}", monitor="val_loss", mode=mode, save_top_k=2
    )
    trainer = fit(tmp_path, saving, callbacks=[keep], max_epochs=5)
    order = sorted(keep.values, key=keep.values.__getitem__, reverse=mode == "max")
    assert names(tmp_path) == sorted(f"step={step}.ckpt" for step in order[:2])
    assert saving.best_model_path.endswith(f"step={order[0]}.ckpt")
    assert saving.best_model_score is not None
    assert float(saving.best_model_score) == pytest.approx(keep.values[order[0]])
    # The file holds the model that had that loss.
    found = trainer.validate(
        make_module(8), make_data(), ckpt_path="best", verbose=False
    )
    assert found[0]["val_loss"] == pytest.approx(keep.values[order[0]])


@pytest.mark.slow
def test_a_metric_of_training_steps_is_that_of_the_step_saved(tmp_path):
    seen = {}

    class Look(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, *args):
            value = float(trainer.callback_metrics["train_loss_step"])
            seen[trainer.global_step] = value

    make_trainer(tmp_path, callbacks=[Look()]).fit(make_module(1), make_data())
    saving = ModelCheckpoint(
        tmp_path,
        "{step}",
        monitor="train_loss_step",
        every_n_train_steps=5,
        save_top_k=1,
        save_on_train_epoch_end=False,
    )
    fit(tmp_path, saving)
    best = min((step for step in seen if step % 5 == 0), key=seen.__getitem__)
    assert names(tmp_path) == [f"step={best}.ckpt"]
    assert saving.best_model_score is not None
    assert float(saving.best_model_score) == seen[best]


@pytest.mark.slow
@pytest.mark.parametrize("last", [True, "link"])
def test_the_last_one_resumes_to_the_bits_of_the_whole_run(tmp_path, last):
    whole = make_module(8)
    make_trainer(tmp_path, max_epochs=3).fit(whole, make_data())
    saving = ModelCheckpoint(tmp_path, save_last=last, save_top_k=1, monitor=None)
    fit(tmp_path, saving, max_epochs=2)
    assert "last.ckpt" in names(tmp_path)
    assert (tmp_path / "last.ckpt").is_symlink() == (last == "link")
    module = make_module(8)
    make_trainer(tmp_path, max_epochs=3).fit(
        module, make_data(), ckpt_path=tmp_path / "last.ckpt"
    )
    assert bits(module) == bits(whole)


@pytest.mark.slow
def test_every_n_epochs_counts_epochs(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{epoch}", every_n_epochs=2, save_top_k=-1)
    fit(tmp_path, saving, max_epochs=5)
    assert names(tmp_path) == ["epoch=1.ckpt", "epoch=3.ckpt"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 4])
def test_train_time_interval_saves_after_each_dispatch_that_is_late(tmp_path, steps):
    # Lightning itself forgets it in manual optimisation.
    saving = ModelCheckpoint(
        tmp_path,
        "{step}",
        train_time_interval=datetime.timedelta(0),
        save_top_k=-1,
    )
    fit(tmp_path, saving, make_module(steps), max_epochs=1)
    ends = {1: range(1, 14), 4: (4, 8, 12, 13)}[steps]
    assert names(tmp_path) == sorted(f"step={step}.ckpt" for step in ends)


@pytest.mark.slow
def test_a_long_train_time_interval_saves_nothing(tmp_path):
    saving = ModelCheckpoint(
        tmp_path, train_time_interval=datetime.timedelta(hours=1), save_top_k=-1
    )
    fit(tmp_path, saving, max_epochs=1)
    assert names(tmp_path) == []


class Fails(pl.Callback):
    sees_every_batch = False

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step >= 17:
            raise RuntimeError("on purpose")


@pytest.mark.slow
@pytest.mark.parametrize(
    "saving",
    [
        lambda folder: ModelCheckpoint(
            folder, "failed", save_on_exception=True, every_n_epochs=100
        ),
        lambda folder: OnExceptionCheckpoint(folder, "failed"),
    ],
    ids=["save_on_exception", "OnExceptionCheckpoint"],
)
def test_what_is_saved_on_an_exception_resumes_to_the_same_bits(tmp_path, saving):
    whole = make_module(8)
    make_trainer(tmp_path).fit(whole, make_data())
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(tmp_path, saving(tmp_path), callbacks=[Fails()])
    assert names(tmp_path) == ["failed.ckpt"]
    module = make_module(8)
    make_trainer(tmp_path).fit(module, make_data(), ckpt_path=tmp_path / "failed.ckpt")
    assert bits(module) == bits(whole)


@pytest.mark.slow
def test_weights_only_leaves_the_optimiser_out(tmp_path):
    saving = ModelCheckpoint(tmp_path, "w", save_weights_only=True)
    fit(tmp_path, saving)
    checkpoint = torch.load(tmp_path / "w.ckpt", weights_only=True)
    assert "optimizer_states" not in checkpoint
    assert not any("opt_state" in name for name in checkpoint["state_dict"])
    assert "state.model.layers.0.weight" in checkpoint["state_dict"]


@pytest.mark.slow
def test_files_that_are_no_longer_wanted_are_removed(tmp_path):
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=1)
    fit(tmp_path, saving)
    assert len(names(tmp_path)) == 1
    assert not list(tmp_path.glob("*partial*"))
