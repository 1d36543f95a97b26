"""Methods that a user overrides in a module or a data module, as Lightning has it."""

from typing import Any, cast

import jax
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import (
    arrays,
    bits,
    make_data,
    make_learner,
    make_module,
    make_trainer,
    network,
)


def make(kind, steps=8):
    return kind(make_learner(), network(), steps_per_dispatch=steps)


def scaled(batch, factor):
    """All but the mask, which is of booleans."""

    def scale(leaf):
        return leaf * factor if np.asarray(leaf).dtype == np.float32 else leaf

    return jax.tree.map(scale, batch)


# training_step


class Zeroing(LearnerModule):
    calls = 0

    def training_step(self, batch, batch_idx):
        self.calls += 1
        self.log("index", float(batch_idx), on_step=False, on_epoch=True)
        return super().training_step(scaled(batch, 0), batch_idx)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8, "auto"])
@pytest.mark.parametrize("kind", ["array", "torch"])
def test_a_training_step_of_the_users_gets_every_batch_and_may_change_it(
    tmp_path, kind, steps
):
    x, y = arrays(96)
    rows = [torch.tensor(a) for a in (x, y)]

    def data(scale):
        if kind == "array":
            return ArrayDataModule(train=(x * scale, y * scale), batch_size=8)
        return DataLoader(TensorDataset(*(row * scale for row in rows)), 8)

    changed, plain = make(Zeroing, steps), make_module(steps)
    trainer = make_trainer(tmp_path)
    trainer.fit(changed, data(1))
    make_trainer(tmp_path).fit(plain, data(0))
    assert changed.calls == trainer.global_step == 24
    assert float(trainer.callback_metrics["index"]) == np.mean(range(12))
    assert bits(changed) == bits(plain)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_training_step_of_the_users_resumes_to_the_same_bits(tmp_path):
    class Scaling(LearnerModule):
        def training_step(self, batch, batch_idx):
            batch = scaled(batch, 1 + batch_idx % 2)
            return super().training_step(batch, batch_idx)

    whole, half, rest = (make(Scaling) for _ in range(3))
    make_trainer(tmp_path, max_steps=20).fit(whole, make_data())
    saving = ModelCheckpoint(tmp_path, every_n_train_steps=7, save_top_k=-1)
    make_trainer(
        tmp_path, max_steps=17, enable_checkpointing=True, callbacks=[saving]
    ).fit(half, make_data())
    (path,) = tmp_path.glob("*step=14.ckpt")
    make_trainer(tmp_path, max_steps=20).fit(rest, make_data(), ckpt_path=path)
    assert bits(rest) == bits(whole)


# on_train_batch_start


@pytest.mark.parametrize("steps", [1, 8])
def test_a_module_may_end_the_epoch_before_a_batch(tmp_path, steps):
    class Short(LearnerModule):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx >= 3 else None

    module = make(Short, steps)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, make_data())
    assert trainer.global_step == 6
    assert module.state_dict()["run.step"] == 6


@pytest.mark.filterwarnings("ignore:train_dataloader yielded None")
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_a_batch_that_is_none_is_left_out_and_no_other(tmp_path, steps):
    batches: list[Any] = [arrays(8, seed) for seed in range(6)]
    batches[2] = batches[5] = None

    class Holes:
        def __iter__(self):
            return iter(batches)

    module = make_module(steps)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, Holes())
    assert trainer.global_step == 8
    assert module.state_dict()["run.step"] == 8


# transfer_batch_to_device


def transfer(self, batch, device, dataloader_idx):
    return scaled(batch, 0)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["module", "data"])
def test_a_transfer_of_the_users_is_made_in_training_as_in_validation(tmp_path, where):
    kinds = {"module": LearnerModule, "data": ArrayDataModule}
    own = type("Own", (kinds[where],), {"transfer_batch_to_device": transfer})
    kinds[where] = own

    def data(kind, scale):
        rows = tuple(a * scale for a in arrays(96))
        return kind(train=rows, validation=rows, batch_size=8)

    changed, plain = make(kinds["module"]), make_module()
    trainers = [make_trainer(tmp_path) for _ in range(2)]
    trainers[0].fit(changed, data(kinds["data"], 1))
    trainers[1].fit(plain, data(ArrayDataModule, 0))
    assert bits(changed) == bits(plain)
    found = [float(t.callback_metrics["val_loss"]) for t in trainers]
    assert found[0] == found[1]


# configure_callbacks


class Seen(pl.Callback):
    def __init__(self):
        self.losses = []

    def on_train_epoch_end(self, trainer, module):
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


class Mixin:
    def configure_callbacks(self):
        return [Seen()]


class Alone(LearnerModule):
    """As Lightning documents it, without a call of `super()`."""

    def configure_callbacks(self):
        return [Seen()]


class Extending(LearnerModule):
    def configure_callbacks(self):
        return [*super().configure_callbacks(), Seen()]


class Mixed(Mixin, LearnerModule):
    pass


class Further(Extending):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Alone, Extending, Mixed, Further])
def test_callbacks_of_a_module_stand_beside_ours(tmp_path, kind):
    module, plain = make(kind), make_module()
    trainer = make_trainer(tmp_path, gradient_clip_val=1e-3)
    make_trainer(tmp_path, gradient_clip_val=1e-3).fit(plain, make_data())
    trainer.fit(module, make_data())
    assert bits(module) == bits(plain)
    assert trainer.gradient_clip_val == 1e-3
    (seen,) = [c for c in cast(Any, trainer).callbacks if isinstance(c, Seen)]
    assert len(seen.losses) == 2
    assert "test_loss" in trainer.test(module, make_data(), verbose=False)[0]


def test_a_callback_of_a_module_that_would_do_nothing_is_rejected(tmp_path):
    class Averaging(LearnerModule):
        def configure_callbacks(self):
            return [EMAWeightAveraging()]

    with pytest.raises(ValueError, match=r"jaxprob\.EMA"):
        make_trainer(tmp_path).fit(make(Averaging), make_data())


@pytest.mark.slow
def test_an_option_changed_between_two_fits_is_the_one_that_counts(tmp_path):
    module, trainer = make_module(), make_trainer(tmp_path, gradient_clip_val=1e-3)
    trainer.fit(module, make_data())
    trainer.gradient_clip_val = 0.5
    trainer.fit(module, make_data())
    assert trainer.gradient_clip_val == 0.5
    assert module._engine.run.options.clip == 0.5
