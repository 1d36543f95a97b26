"""Schedules, plateaus and epochs in a Trainer: those of a loop, by its counters."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import arrays, bits, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.trainer.fit. stopped"),
]
MODEL = eqx.nn.Linear(1, 1, key=jax.random.key(0))


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


def make(optimizer, loss=squared_error, steps=4, **kwargs):
    learner = jaxprob.GradientDescent(loss, optimizer)
    return LearnerModule(learner, MODEL, steps_per_dispatch=steps, **kwargs)


def data():
    return ArrayDataModule(train=arrays(20), validation=arrays(8, 1), batch_size=4)


def decaying(total_steps):
    return optax.sgd(optax.linear_schedule(0.1, 0.0, total_steps))


LENGTHS = {
    "epochs": ({"max_epochs": 3}, 15),
    "limited": ({"max_epochs": 3, "limit_train_batches": 3}, 9),
    "steps": ({"max_steps": 7, "max_epochs": -1}, 7),
    "accumulated": ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6),
}


CASES = [
    ("accumulated", 1),
    *(
        pytest.param(name, devices, marks=pytest.mark.slow)
        for name, devices in (("limited", 1), ("steps", 1), ("epochs", 4))
    ),
]


@pytest.mark.parametrize(("name", "devices"), CASES)
def test_a_schedule_gets_the_number_of_updates(tmp_path, name, devices):
    options, total = LENGTHS[name]
    found = []

    def build(total_steps):
        found.append(total_steps)
        return decaying(total_steps)

    layout = jaxprob.Layout(data=devices)
    module = make(jaxprob.from_total_steps(build), layout=layout)
    trainer = make_trainer(tmp_path, **options)
    trainer.fit(module, data())
    assert trainer.global_step == total == found[-1]
    plain = make(decaying(total), layout=layout)
    make_trainer(tmp_path, **options).fit(plain, data())
    assert bits(module) == bits(plain)


@pytest.mark.slow
def test_a_fit_that_goes_on_counts_the_updates_before_it(tmp_path):
    found = []

    def build(total_steps):
        found.append(total_steps)
        return decaying(total_steps)

    module = make(jaxprob.from_total_steps(build))
    for epochs in (2, 1):
        make_trainer(tmp_path, max_epochs=epochs).fit(module, data())
    assert [n for n in found if n < 1000] == [10, 15]
    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    options = {"callbacks": [saving], "enable_checkpointing": True, "max_epochs": 4}
    whole = make(jaxprob.from_total_steps(build))
    make_trainer(tmp_path, **options).fit(whole, data())
    resumed = make(jaxprob.from_total_steps(build))
    make_trainer(tmp_path, max_epochs=4).fit(
        resumed, data(), ckpt_path=tmp_path / "epoch=1.ckpt"
    )
    assert found[-1] == 20
    assert bits(resumed) == bits(whole)


def test_a_trainer_without_an_end_is_rejected(tmp_path):
    trainer = make_trainer(tmp_path, max_epochs=-1, max_time={"seconds": 60})
    with pytest.raises(ValueError, match="no end that is known: give max_steps"):
        trainer.fit(make(jaxprob.from_total_steps(decaying)), data())


def test_a_loss_gets_the_epoch_of_the_run(tmp_path):
    class Losses(pl.Callback):
        def __init__(self):
            self.found = []

        def on_train_epoch_end(self, trainer, module):
            metrics = trainer.callback_metrics
            self.found.append(
                (float(metrics["train_loss"]), float(metrics["val_loss"]))
            )

    def loss(model, batch, *, key, epoch):
        return jnp.sum(model.weight) * 0 + epoch.astype(jnp.float32), {}

    losses = Losses()
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=8)
    module = make(optax.sgd(0.1), loss)
    options = {"callbacks": [losses, saving], "enable_checkpointing": True}
    make_trainer(tmp_path, **options, max_epochs=3).fit(module, data())
    assert losses.found == [(0.0, 0.0), (1.0, 1.0), (2.0, 2.0)]
    make_trainer(tmp_path, callbacks=[losses], max_epochs=1).fit(module, data())
    assert losses.found[-1] == (3.0, 3.0)
    resumed = make(optax.sgd(0.1), loss)
    make_trainer(tmp_path, callbacks=[losses], max_epochs=3).fit(
        resumed, data(), ckpt_path=tmp_path / "step=8.ckpt"
    )
    assert losses.found[-2:] == [(1.0, 1.0), (2.0, 2.0)]


def plateau(monitor="val_loss", **rule):
    # No value improves by so much: every second one halves the rate.
    rule = {"factor": 0.5, "patience": 2, "atol": 1e6, **rule}
    return optax.chain(optax.sgd(0.1), jaxprob.reduce_on_plateau(monitor, **rule))


@pytest.mark.slow
def test_a_plateau_is_that_of_the_validation_and_resumes(tmp_path):
    def run(module, epochs, *callbacks, **kwargs):
        make_trainer(
            tmp_path,
            max_epochs=epochs,
            callbacks=list(callbacks),
            enable_checkpointing=bool(callbacks),
        ).fit(module, data(), **kwargs)
        return module

    saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole = run(make(plateau()), 5, saving)
    # Values of the end of epochs 0 to 4; the first one is the best ever.
    rates = np.repeat(np.array([0.1, 0.1, 0.1, 0.05, 0.05], np.float32), 5)
    schedule = make(optax.sgd(lambda step: jnp.asarray(rates)[step]))
    expected = run(schedule, 5)
    assert np.allclose(whole.model.weight, expected.model.weight, atol=1e-6)
    assert float(whole.state.opt_state[1].rate_scale) == 0.25
    resumed = make(plateau())
    run(resumed, 5, ckpt_path=tmp_path / "epoch=2.ckpt")
    assert bits(resumed) == bits(whole)


def test_a_plateau_of_the_training_loss_and_the_norm_are_logged(tmp_path):
    module = make(jaxprob.log_gradient_norm(plateau("train_loss")))
    trainer = make_trainer(tmp_path, max_epochs=3, gradient_clip_val=1e-3)
    trainer.fit(module, data())
    assert float(module.state.opt_state.inner[1].rate_scale) == 0.5
    assert float(trainer.callback_metrics["train_grad_norm"]) > 0.1


def test_keys_are_those_of_a_run_that_counts_and_monitors_nothing(tmp_path):
    def noisy(model, batch, *, key):
        (x, y), mask = jaxprob.unpack(batch)
        errors = (jax.vmap(model)(x) - y - jax.random.normal(key, y.shape))[:, 0] ** 2
        return jaxprob.masked_mean(errors, mask), {}

    def in_epoch(model, batch, *, key, epoch):
        return noisy(model, batch, key=key)

    found = make(plateau(patience=99), in_epoch)
    plain = make(optax.sgd(0.1), noisy)
    for module in (found, plain):
        make_trainer(tmp_path, max_epochs=2, val_check_interval=2).fit(module, data())
    # The scale makes another program, which may round the last digit otherwise.
    assert np.allclose(found.model.weight, plain.model.weight, atol=1e-6)


def test_a_monitor_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no metric 'val_f1'.*val_loss"):
        make_trainer(tmp_path).fit(make(plateau("val_f1")), data())


@pytest.mark.slow
def test_what_is_new_on_resume_has_effect(tmp_path):
    def injected(rate):
        return optax.inject_hyperparams(optax.adam)(learning_rate=rate)

    def run(module, epochs, *callbacks, **kwargs):
        make_trainer(
            tmp_path,
            max_epochs=epochs,
            callbacks=list(callbacks),
            enable_checkpointing=bool(callbacks),
        ).fit(module, data(), **kwargs)
        return module

    with jax.numpy_dtype_promotion("standard"):
        saving = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
        before = run(make(injected(1e-2)), 1, saving)
        found = {}
        for rate in (1e-2, 0.0):
            module = make(injected(rate))
            settings = {"ckpt_path": tmp_path / "epoch=0.ckpt"}
            if rate:
                found[rate] = run(module, 2, **settings)
            else:
                match = r"hyperparams\.learning_rate was 0\.0099.* and is 0\.0"
                with pytest.warns(UserWarning, match=match):
                    found[rate] = run(module, 2, **settings)
    assert np.array_equal(found[0.0].model.weight, before.model.weight)
    assert not np.array_equal(found[1e-2].model.weight, before.model.weight)
    count = found[0.0].state.opt_state.inner_state[0].count
    assert int(count) == 10


OPTIMIZERS = {
    "polyak": lambda: optax.polyak_sgd(max_learning_rate=0.3),
    "lbfgs": lambda: optax.lbfgs(memory_size=4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_that_reads_the_loss_is_optax_by_hand(tmp_path, name):
    x, y = arrays(20)

    def value_fn(model):
        return jnp.mean((x @ model.weight.T + model.bias - y) ** 2)

    full = ArrayDataModule(train=(x, y), batch_size=20)
    optimizer = OPTIMIZERS[name]()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        module = make(optimizer)
        make_trainer(tmp_path, max_epochs=4, limit_val_batches=0).fit(module, full)
        params: Any = MODEL
        state = optimizer.init(params)
        for _ in range(4):
            value, grad = jax.value_and_grad(value_fn)(params)
            extra = {"value": value}
            if name == "lbfgs":
                extra |= {"grad": grad, "value_fn": value_fn}
            updates, state = optimizer.update(grad, state, params, **extra)
            params = optax.apply_updates(params, updates)
    assert np.allclose(module.model.weight, params.weight, atol=1e-5)
    assert np.allclose(module.model.bias, params.bias, atol=1e-5)
    assert not np.allclose(params.weight, MODEL.weight, atol=1e-2)
