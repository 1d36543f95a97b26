"""Resume: the run that was stopped and went on is the run that was not stopped."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from jaxprob.lightning import CheckpointMismatchError

from ..scene import bits, make_data, make_learner, make_module, make_trainer, network

pytestmark = [
    # The Trainer that resumes writes no checkpoints of its own.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def everything(folder, interval=5):
    return ModelCheckpoint(
        dirpath=folder,
        every_n_train_steps=interval,
        save_top_k=-1,
        save_on_train_epoch_end=False,
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Three epochs of 13 steps, with shuffling, noise, dropout, Adam and an EMA."""
    folder = tmp_path_factory.mktemp("whole")
    module = make_module(8)
    trainer = make_trainer(
        folder,
        max_epochs=3,
        enable_checkpointing=True,
        callbacks=[
            everything(folder),
            ModelCheckpoint(folder, "end-{epoch}", save_top_k=-1),
        ],
    )
    trainer.fit(module, make_data())
    return folder, bits(module)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8])
@pytest.mark.parametrize(
    "name",
    [
        "epoch=0-step=5.ckpt",
        "epoch=0-step=10.ckpt",
        "epoch=1-step=20.ckpt",
        "epoch=2-step=35.ckpt",
        "end-epoch=0.ckpt",
        "end-epoch=1.ckpt",
    ],
)
def test_resuming_gives_the_bits_of_the_uninterrupted_run(tmp_path, whole, name, steps):
    folder, expected = whole
    module = make_module(steps)
    trainer = make_trainer(tmp_path, max_epochs=3)
    trainer.fit(module, make_data(), ckpt_path=folder / name)
    assert trainer.global_step == 39
    assert bits(module) == expected


def test_a_checkpoint_loads_with_weights_only_and_holds_no_class_of_ours(whole):
    folder, _ = whole
    checkpoint = torch.load(folder / "epoch=1-step=20.ckpt", weights_only=True)
    tensors = checkpoint["state_dict"]
    assert all(isinstance(t, torch.Tensor) for t in tensors.values())
    assert "state.model.layers.0.weight" in tensors
    assert "state.ema.layers.0.weight" in tensors
    assert int(tensors["run.step"]) == 20
    assert not any("opt_state" in name for name in tensors)
    optimizer = checkpoint["optimizer_states"][0]
    assert all("opt_state" in name for name in optimizer)


@pytest.mark.slow
def test_weights_alone_leave_the_optimiser_out(tmp_path):
    module = make_module()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "w.ckpt", weights_only=True)
    checkpoint = torch.load(tmp_path / "w.ckpt", weights_only=True)
    assert "optimizer_states" not in checkpoint
    fresh = type(module).load_from_checkpoint(
        tmp_path / "w.ckpt", learner=make_learner(), model=network(5)
    )
    found = trainer.validate(fresh, make_data(), verbose=False)
    assert found == trainer.validate(module, make_data(), verbose=False)


class Fails(pl.Callback):
    sees_every_batch = False

    def __init__(self, hook, step):
        self.step = step
        setattr(self, hook, self.fail)

    def fail(self, trainer, *args):
        if trainer.global_step >= self.step:
            raise RuntimeError("on purpose")


class SaveOnFailure(pl.Callback):
    def on_exception(self, trainer, module, exception):
        trainer.save_checkpoint(f"{trainer.default_root_dir}/failed.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8])
def test_a_run_that_failed_goes_on_where_it_was(tmp_path, whole, steps):
    _, expected = whole
    trainer = make_trainer(
        tmp_path,
        max_epochs=3,
        callbacks=[
            Fails("on_train_batch_end", 17),
            SaveOnFailure(),
        ],
    )
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer.fit(make_module(steps), make_data())
    module = make_module(steps)
    make_trainer(tmp_path, max_epochs=3).fit(
        module, make_data(), ckpt_path=tmp_path / "failed.ckpt"
    )
    assert bits(module) == expected


def test_a_loader_that_fails_does_so_after_the_batches_before_it(tmp_path):
    class Broken:
        def __len__(self):
            return 13

        def __iter__(self):
            for i, batch in enumerate(make_data().train_dataloader()):
                if i == 5:
                    raise OSError("disk gone")
                yield batch

    module = make_module(8)
    trainer = make_trainer(tmp_path)
    with pytest.raises(OSError, match="disk gone"):
        trainer.fit(module, Broken())
    assert trainer.global_step == 5
    assert int(module.state_dict()["run.step"]) == 5


def test_another_model_is_rejected_by_the_name_of_the_leaf(tmp_path, whole):
    folder, _ = whole
    from jaxprob.lightning import LearnerModule

    other = LearnerModule(make_learner(), network(width=8))
    with pytest.raises(CheckpointMismatchError, match=r"layers\.0\.weight"):
        make_trainer(tmp_path, max_epochs=3).fit(
            other, make_data(), ckpt_path=folder / "end-epoch=0.ckpt"
        )


def test_a_missing_leaf_is_named(whole):
    folder, _ = whole
    tensors = torch.load(folder / "end-epoch=0.ckpt", weights_only=True)["state_dict"]
    del tensors["state.model.layers.0.bias"]
    with pytest.raises(CheckpointMismatchError, match=r"lacks state\.model\.layers\.0"):
        make_module().load_state_dict(tensors)


def test_two_leaves_swapped_are_rejected_where_shapes_differ(whole):
    folder, _ = whole
    tensors = torch.load(folder / "end-epoch=0.ckpt", weights_only=True)["state_dict"]
    a, b = "state.model.layers.0.weight", "state.model.layers.3.weight"
    tensors[a], tensors[b] = tensors[b], tensors[a]
    with pytest.raises(CheckpointMismatchError, match="expects"):
        make_module().load_state_dict(tensors)


class SaveAll(pl.Callback):
    """A checkpoint after each dispatch, and perhaps at the end of each epoch."""

    sees_every_batch = False

    def __init__(self, folder, epochs):
        self.folder = folder
        self.epochs = epochs

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.folder / f"{trainer.global_step:03d}.ckpt")

    def on_train_epoch_end(self, trainer, *args):
        if self.epochs:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step:03d}e.ckpt")


# With `max_steps`, Lightning alone ends an epoch twice when it resumes from a
# checkpoint that was written at its very end.
LENGTHS = [({"max_epochs": 3}, True), ({"max_epochs": -1, "max_steps": 39}, True)]


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 1])
def test_with_max_steps_an_epoch_that_was_saved_at_its_end_ends_once(
    tmp_path, whole, epoch
):
    folder, expected = whole
    module = make_module(8)
    seen = []

    class Ends(pl.Callback):
        def on_train_epoch_end(self, trainer, module):
            seen.append((trainer.current_epoch, trainer.global_step))

    trainer = make_trainer(tmp_path, max_epochs=-1, max_steps=39, callbacks=[Ends()])
    trainer.fit(module, make_data(), ckpt_path=folder / f"end-epoch={epoch}.ckpt")
    assert seen == [(0, 13), (1, 26), (2, 39)][epoch + 1 :]
    assert bits(module) == expected


@pytest.mark.slow
@pytest.mark.parametrize(("length", "epochs"), LENGTHS, ids=["epochs", "steps"])
def test_a_run_resumed_twice_gives_the_same_bits(tmp_path, length, epochs):
    # Lightning alone loses count after a resume at the last batch of an epoch.
    module = make_module(8)
    folders = [tmp_path / name for name in ("whole", "again")]
    saving = SaveAll(folders[0], epochs)
    make_trainer(tmp_path, callbacks=[saving], **length).fit(module, make_data())
    expected = bits(module)
    last = 2 if epochs else 1
    for first in sorted(folders[0].glob("*.ckpt"))[: -last - 1]:
        again = folders[1] / first.stem
        saving = SaveAll(again, epochs)
        make_trainer(tmp_path, callbacks=[saving], **length).fit(
            module, make_data(), ckpt_path=first
        )
        assert bits(module) == expected, first.name
        second = sorted(again.glob("*.ckpt"))[1]
        trainer = make_trainer(tmp_path, **length)
        trainer.fit(module, make_data(), ckpt_path=second)
        assert bits(module) == expected, f"{first.name}, then {second.name}"
        assert trainer.global_step == 39
