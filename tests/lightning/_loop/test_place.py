"""The place in the data is the run's: not a loader's, not a Trainer's."""

from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.utilities import CombinedLoader

import jaxprob
from jaxprob.lightning import CheckpointMismatchError, LearnerModule

from ..scene import (
    arrays,
    bits,
    make_data,
    make_learner,
    make_module,
    make_trainer,
    network,
)
from .test_resume import everything

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    # Lightning calls a name that torch has renamed.
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You requested to overfit"),
]


class Epochs(pl.Callback):
    """A checkpoint at the end of each epoch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, trainer, module):
        trainer.save_checkpoint(self.folder / f"end={trainer.global_step}.ckpt")


class Looks(pl.Callback):
    """Takes a batch of the training loader for itself, again and again."""

    sees_every_batch = False

    def on_train_batch_end(self, trainer, module, *args):
        list(trainer.train_dataloader)
        next(iter(trainer.train_dataloader))


def loader(rows=100, batch_size=8, seed=0):
    return jaxprob.ArrayLoader(
        arrays(rows), batch_size=batch_size, shuffle=True, seed=seed
    )


def one_for_two_purposes():
    both = loader()
    return {"train_dataloaders": both, "val_dataloaders": both}


RUNS = {
    "limit": ({"limit_train_batches": 10}, None, 10),
    "overfit": ({"overfit_batches": 4}, None, 3),
    "validations": ({"val_check_interval": 6}, None, 9),
    "reload": ({"reload_dataloaders_every_n_epochs": 1}, None, 11),
    "max_steps": ({"max_steps": 24, "max_epochs": -1}, None, 16),
    "two purposes": ({}, one_for_two_purposes, 18),
    "a look": ({"callbacks": [Looks()]}, None, 18),
}


def run(folder, options, data, saves=(), ckpt_path=None):
    module = make_module(4)
    callbacks = [*options.get("callbacks", []), *saves]
    options = {"max_epochs": 2, **options, "callbacks": callbacks}
    trainer = make_trainer(folder, enable_checkpointing=bool(saves), **options)
    data = make_data() if data is None else data()
    given: Any = data if isinstance(data, dict) else {"datamodule": data}
    trainer.fit(module, **given, ckpt_path=ckpt_path)
    return bits(module), trainer.global_step


def saving(folder, interval=5):
    return [Epochs(folder), everything(folder, interval)]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_resumed_anywhere_sees_the_rows_of_the_whole_run(tmp_path, name):
    options, data, interval = RUNS[name]
    whole = run(tmp_path, options, data, saving(tmp_path, interval))
    found = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-1]:
        assert run(tmp_path, options, data, ckpt_path=path) == whole, path.name


def test_looking_at_a_loader_or_using_it_twice_changes_no_bit(tmp_path):
    plain = run(tmp_path, {}, None)
    assert run(tmp_path, {"callbacks": [Looks()]}, None) == plain


class Rows(LearnerModule):
    """Notes the rows that it trains on."""

    def __init__(self, steps=4):
        super().__init__(make_learner(), network(), steps_per_dispatch=steps)
        self.seen = []

    def on_before_batch_transfer(self, batch, dataloader_idx):
        if self.trainer.training:
            (x, _), mask = jaxprob.unpack(batch)
            self.seen.append(np.asarray(x)[np.asarray(mask), 0].tolist())
        return batch


def epochs_of(module, per_epoch=13):
    flat = module.seen
    starts = range(0, len(flat), per_epoch)
    return [[x for rows in flat[i : i + per_epoch] for x in rows] for i in starts]


def test_new_trainers_for_every_few_steps_see_all_rows_once_an_epoch(tmp_path):
    module, rows = Rows(), sorted(arrays(100)[0][:, 0].tolist())
    data = loader()
    for end in (5, 5, 9, 7):  # two epochs of 13
        make_trainer(tmp_path, max_steps=end, max_epochs=-1).fit(module, data)
    first, second = epochs_of(module)
    assert sorted(first) == sorted(second) == rows
    assert first != second
    whole = Rows()
    make_trainer(tmp_path).fit(whole, loader())
    assert module.seen == whole.seen


@pytest.mark.slow
def test_a_process_that_loads_the_weights_alone_goes_on_with_the_next_rows(tmp_path):
    whole, first, second = Rows(), Rows(), Rows()
    make_trainer(tmp_path).fit(whole, loader())
    trainer = make_trainer(tmp_path, max_steps=9, max_epochs=-1)
    trainer.fit(first, loader())
    second.load_state_dict(first.state_dict())
    make_trainer(tmp_path, max_steps=17, max_epochs=-1).fit(second, loader())
    assert first.seen + second.seen == whole.seen


@pytest.mark.slow
def test_a_run_that_max_steps_ended_in_an_epoch_goes_on_with_its_rest(tmp_path):
    whole, first, second = Rows(), Rows(), Rows()
    make_trainer(tmp_path, max_steps=16, max_epochs=-1).fit(whole, loader())
    trainer = make_trainer(tmp_path, max_steps=5, max_epochs=-1)
    trainer.fit(first, loader())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer = make_trainer(tmp_path, max_steps=16, max_epochs=-1)
    trainer.fit(second, loader(), ckpt_path=tmp_path / "a.ckpt")
    assert first.seen + second.seen == whole.seen
    assert bits(second) == bits(whole)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max_size_cycle", "max_size"])
def test_loaders_of_different_lengths_keep_their_places(tmp_path, mode):
    def make():
        long = jaxprob.ArrayLoader(arrays(20), batch_size=4, shuffle=True)
        short = jaxprob.ArrayLoader(arrays(12, 1), batch_size=4, shuffle=True, seed=1)
        return CombinedLoader({"long": long, "short": short}, mode)

    class Pairs(LearnerModule):
        def __init__(self):
            super().__init__(make_learner(), network(), steps_per_dispatch=4)
            self.seen = []

        def on_before_batch_transfer(self, batch, dataloader_idx):
            self.seen.append(
                [None if b is None else b.data[0].tolist() for b in batch.values()]
            )
            return batch["long"]

    options = {"max_epochs": 2, "limit_val_batches": 0}
    whole = Pairs()
    make_trainer(
        tmp_path, enable_checkpointing=True, callbacks=saving(tmp_path, 4), **options
    ).fit(whole, make())
    found = sorted(tmp_path.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    for path in found[:-1]:
        module = Pairs()
        make_trainer(tmp_path, **options).fit(module, make(), ckpt_path=path)
        step = int(path.stem.split("=")[-1])
        assert module.seen == whole.seen[step:], path.name


CHANGES = {
    "batch_size": {"batch_size": 4},
    "num_rows": {"rows": 96},
    "seed": {"seed": 1},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    run(folder, {}, None, saving(folder))
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_other_data_are_rejected_in_the_middle_of_an_epoch(tmp_path, saved, name):
    trainer = make_trainer(tmp_path)
    data, path = make_data(**CHANGES[name]), saved / "epoch=0-step=5.ckpt"
    with pytest.raises(CheckpointMismatchError, match=rf"{name} is \d+ and was \d+.*5"):
        trainer.fit(make_module(4), data, ckpt_path=path)
    assert trainer.global_step == 5


def test_other_data_are_warned_of_between_two_epochs(tmp_path, saved):
    with pytest.warns(UserWarning, match="seed is 1 and was 0. From epoch 1 on"):
        make_trainer(tmp_path).fit(
            make_module(4), make_data(seed=1), ckpt_path=saved / "end=13.ckpt"
        )
