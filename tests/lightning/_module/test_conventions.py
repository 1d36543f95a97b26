"""Conventions of Lightning and torch: each has effect, or is rejected by name."""

import sys
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BasePredictionWriter,
    DeviceStatsMonitor,
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    OnExceptionCheckpoint,
    RichProgressBar,
    Timer,
    TQDMProgressBar,
)
from pytorch_lightning.utilities import grad_norm

import jaxprob
from jaxprob.lightning import (
    ArrayDataModule,
    LearnerModule,
    ParameterHistograms,
    SaveOnSignal,
)
from jaxprob.lightning._data.seed import resolve_seed
from jaxprob.lightning._module.arguments import check_arguments
from jaxprob.lightning._trainer import packages as _packages
from jaxprob.lightning._trainer.foreign import is_foreign
from jaxprob.lightning._trainer.reject_overrides import NEVER_CALLED
from jaxprob.lightning._trainer.watchers import each_batch_watchers

from ..scene import arrays, bits, make_data, make_learner, make_trainer, network


def make(kind=LearnerModule, **kwargs):
    return kind(make_learner(), network(), **kwargs)


# Seeds.


def test_the_default_seed_is_that_of_seed_everything():
    assert make().seed == make_data().seed == 0
    pl.seed_everything(7, verbose=False)
    assert make().seed == make_data().seed == 7
    assert make(seed=3).seed == make_data(seed=3).seed == 3
    pl.seed_everything(2**32 - 1, verbose=False)
    assert make().seed == 2**32 - 1


@pytest.mark.slow
def test_seed_everything_changes_the_run_and_a_checkpoint_brings_its_own(tmp_path):
    def fitted(seed, epochs=2, **kwargs):
        pl.seed_everything(seed, verbose=False)
        module, trainer = make(), make_trainer(tmp_path, max_epochs=epochs)
        trainer.fit(module, make_data(24, seed=0), **kwargs)
        return module, trainer

    whole, _ = fitted(1)
    again, _ = fitted(1)
    other, _ = fitted(2)
    assert bits(whole) == bits(again) != bits(other)
    _, trainer = fitted(1, 1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest, _ = fitted(2, ckpt_path=tmp_path / "half.ckpt")
    assert rest.seed == 1
    assert bits(rest) == bits(whole)
    # Of evaluation too, whose keys are derived from the seed.
    assert jnp.array_equal(
        jax.random.key_data(rest._engine.keys.evaluation),
        jax.random.key_data(whole._engine.keys.evaluation),
    )


@pytest.mark.parametrize("seed", [1.0, "1", True])
def test_a_seed_is_an_integer(seed):
    with pytest.raises(TypeError, match="give an integer"):
        resolve_seed(seed)


# Overridden methods.


@pytest.mark.parametrize("name", NEVER_CALLED)
def test_an_override_without_effect_is_rejected(tmp_path, name):
    kind = type("Own", (LearnerModule,), {name: lambda self, *args, **kwargs: None})
    with pytest.raises(TypeError, match=f"Own overrides {name}, .*: "):
        make_trainer(tmp_path).fit(make(kind), make_data())


def test_automatic_optimization_is_rejected(tmp_path):
    module = make()
    module.automatic_optimization = True
    with pytest.raises(ValueError, match="automatic_optimization is True"):
        make_trainer(tmp_path).fit(module, make_data())


def test_a_callback_that_waits_for_a_backward_pass_is_rejected(tmp_path):
    class Gradients(pl.Callback):
        def on_after_backward(self, trainer, module):
            pass

    with pytest.raises(TypeError, match="Gradients overrides on_after_backward"):
        make_trainer(tmp_path, callbacks=[Gradients()]).fit(make(), make_data())


@pytest.mark.parametrize("out", [None, {"loss": torch.ones(())}])
def test_a_training_step_without_super_raises_at_the_first_batch(tmp_path, out):
    class Ported(LearnerModule):
        calls = 0

        def training_step(self, batch, batch_idx):
            self.calls += 1
            return out

    module = make(Ported)
    with pytest.raises(TypeError, match=r"super\(\)\.training_step\(batch, batch_idx"):
        make_trainer(tmp_path, max_steps=10).fit(module, make_data())
    assert module.calls == 1


def test_a_training_step_called_in_a_validation_is_rejected(tmp_path):
    class Same(LearnerModule):
        def validation_step(self, batch, batch_idx):
            return self.training_step(batch, batch_idx)

    with pytest.raises(RuntimeError, match="would train on these rows"):
        make_trainer(tmp_path).validate(make(Same), make_data(), verbose=False)


@pytest.mark.parametrize("name", ["model", "learning_rate"])
def test_what_is_only_read_says_so_when_it_is_set(name):
    with pytest.raises(AttributeError, match=f"{name} is read, not set"):
        setattr(make(), name, 1.0)


@pytest.mark.slow
def test_a_training_step_may_leave_out_batches_but_not_all(tmp_path):
    class Picky(LearnerModule):
        least = 3

        def training_step(self, batch, batch_idx):
            if batch_idx < self.least:
                return None
            return super().training_step(batch, batch_idx)

    module: Any = make(Picky)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(module, make_data(40))
    assert trainer.global_step == module.state_dict()["run.step"] == 4
    module.least = 100
    with pytest.raises(TypeError, match="made no step"):
        make_trainer(tmp_path, max_epochs=2).fit(module, make_data(40))


# Callbacks that count.


class Every(pl.Callback):
    def __init__(self):
        self.at = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.at.append((trainer.global_step, batch_idx))


class Skippable(Every):
    sees_every_batch = False


class Counting(ModelCheckpoint):
    seen = 0

    def on_train_batch_end(self, *args):
        self.seen += 1


def looking(kind, hook):
    """A subclass that notes the loss it finds in a hook."""

    def look(self, trainer, *args):
        self.found.append(float(trainer.callback_metrics.get("train_loss_step", -1)))

    return type("Looking", (kind,), {hook: look, "found": []})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*may read every batch")
def test_a_hook_of_the_users_finds_the_metrics_of_the_step(tmp_path):
    plain = looking(pl.Callback, "on_train_batch_end")()
    stopping = looking(EarlyStopping, "on_train_batch_end")("val_loss")
    start = looking(pl.Callback, "on_train_batch_start")()
    for callback in (plain, stopping, start):
        trainer = make_trainer(tmp_path, max_epochs=1, callbacks=[callback])
        trainer.fit(make(), make_data())
    assert len(set(plain.found)) == 13
    assert stopping.found == plain.found
    assert start.found == [-1, *plain.found[:-1]]


class Before(pl.Callback):
    def __init__(self):
        self.zeroed = self.stepped = 0

    def on_before_zero_grad(self, trainer, module, optimizer):
        self.zeroed += 1

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.stepped += 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*may read every batch")
def test_a_callback_of_the_users_sees_every_batch(tmp_path):
    every, counting, before = Every(), Counting(tmp_path), Before()
    trainer = make_trainer(
        tmp_path, enable_checkpointing=True, callbacks=[every, counting, before]
    )
    trainer.fit(make(), make_data())
    assert every.at == [(i + 1, i % 13) for i in range(26)]
    assert counting.seen == before.zeroed == before.stepped == 26


@pytest.mark.slow
def test_a_callback_may_say_that_it_needs_less(tmp_path):
    skippable = Skippable()
    make_trainer(tmp_path, callbacks=[skippable]).fit(
        make(steps_per_dispatch=5), make_data()
    )
    assert skippable.at == [(5, 4), (10, 9), (13, 12), (18, 4), (23, 9), (26, 12)]


@pytest.mark.slow
def test_what_showing_every_batch_costs_is_said_once(tmp_path):
    trainer = make_trainer(tmp_path, max_epochs=3, callbacks=[Every()])
    with pytest.warns(UserWarning, match="Every.sees_every_batch = False") as found:
        trainer.fit(make(), make_data())
    assert len([w for w in found if "sees_every" in str(w.message)]) == 1


@pytest.mark.slow
def test_a_number_of_steps_that_hides_batches_is_warned_of_once(tmp_path):
    every = Every()
    trainer = make_trainer(tmp_path, callbacks=[every])
    with pytest.warns(UserWarning, match="Every: .*steps_per_dispatch=5") as found:
        trainer.fit(make(steps_per_dispatch=5), make_data())
    assert len([w for w in found if "sees_every" in str(w.message)]) == 1
    assert [step for step, _ in every.at] == [5, 10, 13, 18, 23, 26]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*may read every batch")
def test_a_hook_of_the_module_sees_every_batch(tmp_path):
    class Own(LearnerModule):
        seen = 0

        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.seen += 1

    module = make(Own)
    make_trainer(tmp_path).fit(module, make_data())
    assert module.seen == 26


def test_whose_hooks_are_known():
    known = [
        DeviceStatsMonitor(),
        EarlyStopping("val_loss"),
        LearningRateMonitor(),
        ModelCheckpoint(),
        ModelSummary(),
        OnExceptionCheckpoint("."),
        ParameterHistograms(),
        RichProgressBar(),
        SaveOnSignal("."),
        TQDMProgressBar(),
        Timer("00:00:10:00"),
        LambdaCallback(on_train_epoch_end=print),
        Skippable(),
    ]
    bar = type("Bar", (TQDMProgressBar,), {"on_train_batch_end": print})
    given = LambdaCallback(on_train_batch_end=lambda *args: None)
    foreign = [Every(), Counting(), Before(), bar(), given]
    trainer = types.SimpleNamespace(
        lightning_module=make(), callbacks=[*known, *foreign]
    )
    names = [type(callback).__name__ for callback in foreign]
    assert each_batch_watchers(trainer) == names
    assert not is_foreign(make(), "on_train_batch_end")


# Torch's module.


def test_a_module_called_on_a_batch_predicts(tmp_path):
    x, y = arrays(6)
    module = make()
    expected = jax.vmap(eqx.nn.inference_mode(module.model))(x)
    for batch in (x, (x, y), torch.tensor(x)):
        assert np.allclose(module(batch), expected, atol=1e-6)

    class Doubled(LearnerModule):
        def forward(self, batch):
            return 2 * super().forward(batch)

    found: Any = make_trainer(tmp_path).predict(
        make(Doubled), ArrayDataModule(predict=x, batch_size=6)
    )
    (found,) = found
    assert np.allclose(found, 2 * expected, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: list(m.parameters()), r"module\.model"),
        (lambda m: grad_norm(m, 2), r"module\.gradient"),
        (lambda m: torch.optim.Adam(m.parameters()), r"module\.model"),
        (lambda m: m.half(), "bf16-true"),
        (lambda m: m.double(), "bf16-true"),
        (lambda m: m.to(torch.bfloat16), "bf16-true"),
        (lambda m: m.type(torch.float64), "bf16-true"),
        (lambda m: m.requires_grad_(False), r"jaxprob\.tree\.freeze"),
        (lambda m: m.manual_backward(torch.ones(())), "the loss"),
        (lambda m: m.toggle_optimizer(None), "trainable="),
        (lambda m: m.clip_gradients(None), "gradient_clip_val"),
        (lambda m: m.to_torchscript(), r"jax\.export"),
        (lambda m: m.to_onnx("a"), r"jax\.export"),
    ],
)
def test_a_method_of_torch_without_effect_is_rejected(call, message):
    with pytest.raises(TypeError, match=message):
        call(make())


def test_methods_of_torch_that_change_nothing_are_taken():
    module = make()
    same = [module.float(), module.to("cpu"), module.to(torch.float32), module.cpu()]
    same += [module.requires_grad_(), module.eval(), module.train()]
    assert all(each is module for each in same)
    module.zero_grad()

    class WithTorch(LearnerModule):
        def __init__(self):
            super().__init__(make_learner(), network())
            self.layer = torch.nn.Linear(1, 1)

    assert len(list(WithTorch().parameters())) == 2


def test_the_gradient_of_a_batch_is_that_of_the_loss():
    def loss(model, batch, *, key):
        x, y = batch
        return jnp.mean((jax.vmap(model)(x) - y) ** 2), {}

    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    x, y = arrays(8)
    expected = eqx.filter_grad(lambda m: loss(m, (x, y), key=None)[0])(model)
    found = LearnerModule(learner, model).gradient((torch.tensor(x), torch.tensor(y)))
    assert np.allclose(found.weight, expected.weight, atol=1e-6)
    assert np.allclose(found.bias, expected.bias, atol=1e-6)


# Loaders, writers, packages.


@pytest.mark.slow
def test_a_dict_of_one_loader_gives_dicts(tmp_path):
    def loss(model, batch, *, key):
        data = batch["only"] if isinstance(batch, dict) else batch[0]
        (x, y), mask = jaxprob.unpack(data)
        errors = (jax.vmap(model)(x) - y) ** 2
        return jaxprob.masked_mean(errors[:, 0], mask), {}

    def fitted(loaders):
        learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
        module = LearnerModule(learner, network()[0:1], steps_per_dispatch=4)
        trainer = make_trainer(tmp_path, max_epochs=1)
        trainer.fit(module, loaders)
        return bits(module), trainer.global_step

    def loader():
        return jaxprob.ArrayLoader(arrays(40), batch_size=8)

    assert fitted({"only": loader()}) == fitted([loader()])


class Writer(BasePredictionWriter):
    def __init__(self, interval):
        super().__init__(interval)
        self.found = []

    def write_on_batch_end(self, trainer, module, out, indices, batch, *args):
        self.found.append((indices, np.asarray(out)[:, 0].tolist()))

    def write_on_epoch_end(self, trainer, module, predictions, batch_indices):
        self.found += [
            (rows, np.asarray(out)[:, 0].tolist())
            for rows, out in zip(batch_indices[0], predictions, strict=True)
        ]


@pytest.mark.parametrize("interval", ["batch", "epoch"])
def test_a_prediction_writer_gets_the_rows_of_its_predictions(tmp_path, interval):
    class Rows(LearnerModule):
        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            data, mask = jaxprob.unpack(batch)
            return np.asarray(data)[np.asarray(mask)]

    writer = Writer(interval)
    data = ArrayDataModule(
        predict=np.arange(20, dtype=np.float32)[:, None], batch_size=8
    )
    trainer = make_trainer(tmp_path, callbacks=[writer])
    trainer.predict(make(Rows), data, return_predictions=False)
    assert [len(rows) for rows, _ in writer.found] == [8, 8, 4]
    assert all(rows == values for rows, values in writer.found)
    assert [row for rows, _ in writer.found for row in rows] == list(range(20))


def of_other_package(name, *bases):
    return type(name, bases, {"__module__": "lightning.pytorch.stand_in"})


def test_the_other_package_is_named(tmp_path, monkeypatch):
    module = make()
    with pytest.raises(TypeError, match="import pytorch_lightning as pl"):
        module.trainer = of_other_package("Trainer")()
    callback = of_other_package("ModelCheckpoint", pl.Callback)()
    with pytest.raises(TypeError, match=r"stand_in\.ModelCheckpoint, of"):
        make_trainer(tmp_path, callbacks=[callback]).fit(make(), make_data())
    with pytest.raises(TypeError, match=r"stand_in\.L, of another"):
        make(type("Mixed", (LearnerModule, of_other_package("L")), {}))
    other = types.ModuleType("lightning")
    vars(other)["LightningModule"] = object
    monkeypatch.setitem(sys.modules, "lightning", other)
    monkeypatch.setattr(_packages, "_warned", False)
    with pytest.warns(UserWarning, match="import pytorch_lightning as pl"):
        make()
    make()  # once


def test_learner_and_model_in_the_wrong_order_are_named():
    with pytest.raises(TypeError, match="learner comes first"):
        check_arguments(network(), make_learner())
    with pytest.raises(TypeError, match="learner is a"):
        check_arguments(optax.adam(1e-3), network())
    with pytest.raises(TypeError, match=r"torch\.nn.*of torch"):
        check_arguments(make_learner(), torch.nn.Linear(1, 1))
    with pytest.raises(TypeError, match="layout=4"):
        check_arguments(make_learner(), network(), 4)
