"""Lightning's callbacks and profilers beside a JAX step: they work, or are rejected."""

import csv
import datetime
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BatchSizeFinder,
    DeviceStatsMonitor,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
)
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins.io import AsyncCheckpointIO
from pytorch_lightning.profilers import (
    AdvancedProfiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from pytorch_lightning.tuner import Tuner

import jaxprob
from jaxprob.lightning import AtomicCheckpointIO, LearnerModule
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ..scene import bits, make_data, make_module, make_trainer, network, sealed


@pytest.mark.parametrize(
    ("callback", "remedy"),
    [
        (lambda: EMAWeightAveraging(), "jaxprob.EMA"),
        (lambda: StochasticWeightAveraging(swa_lrs=0.1), "jaxprob.EMA"),
        (lambda: LearningRateFinder(), "schedules"),
        (lambda: BatchSizeFinder(), "batch_size="),
        (lambda: BackboneFinetuning(), "trainable="),
        (lambda: ModelPruning("l1_unstructured", amount=0.5), "tree_at"),
        (lambda: GradientAccumulationScheduler({0: 2}), "MultiSteps"),
        (lambda: ThroughputMonitor(len), "steps_per_dispatch=1"),
    ],
)
def test_callbacks_that_would_do_nothing_are_rejected(tmp_path, callback, remedy):
    with pytest.raises(ValueError, match=remedy):
        make_trainer(tmp_path, callbacks=[callback()]).fit(make_module(), make_data())


@pytest.mark.parametrize(
    ("method", "remedy"),
    [("lr_find", "schedules"), ("scale_batch_size", "batch_size=")],
)
def test_the_tuner_is_rejected(tmp_path, method, remedy):
    tuner = Tuner(make_trainer(tmp_path))
    with pytest.raises(ValueError, match=remedy):
        getattr(tuner, method)(make_module(), datamodule=make_data())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*you need to define a `flops_per_batch`")
def test_a_throughput_monitor_counts_every_batch_of_single_steps(tmp_path):
    logger = CSVLogger(tmp_path, "csv")
    monitor = ThroughputMonitor(lambda batch: 8, window_size=5)
    make_trainer(tmp_path, logger=logger, log_every_n_steps=5, callbacks=[monitor]).fit(
        make_module(1), make_data()
    )
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rows = [row["train/batches"] for row in csv.DictReader(file)]
    assert [int(float(row)) for row in rows if row] == [5, 10, 15, 20, 25]


def test_a_frozen_module_is_not_trained(tmp_path):
    module = make_module()
    assert module.freeze() is module
    trainer = make_trainer(tmp_path, max_steps=1)
    trainer.validate(module, make_data(), verbose=False)
    with pytest.raises(ValueError, match="trainable="):
        trainer.fit(module, make_data())
    module.unfreeze()
    trainer.fit(module, make_data())
    assert trainer.global_step == 1


def test_a_learning_rate_that_is_set_from_outside_is_rejected(tmp_path):
    class Set(pl.Callback):
        def on_train_epoch_start(self, trainer, module):
            for group in trainer.optimizers[0].param_groups:
                group["lr"] = 0.0

    with pytest.raises(TypeError, match=r"'lr' cannot be set.*schedule"):
        make_trainer(tmp_path, callbacks=[Set()]).fit(make_module(), make_data())


@pytest.mark.slow
def test_a_callback_sees_the_means_of_the_epoch_that_ends(tmp_path):
    seen, after = {}, {}

    class Look(pl.Callback):
        def note(self, trainer, name, into):
            if not trainer.sanity_checking:
                value = float(trainer.callback_metrics[name])
                into.setdefault(name, []).append(value)

        def on_train_epoch_end(self, trainer, module):
            self.note(trainer, "train_loss", seen)

        def on_validation_epoch_end(self, trainer, module):
            self.note(trainer, "val_loss", seen)

        def on_test_epoch_end(self, trainer, module):
            self.note(trainer, "test_loss", seen)

        def on_validation_end(self, trainer, module):
            self.note(trainer, "val_loss", after)

        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch:
                self.note(trainer, "train_loss", after)

        def on_fit_end(self, trainer, module):
            self.note(trainer, "train_loss", after)

        def on_test_end(self, trainer, module):
            self.note(trainer, "test_loss", after)

    module = make_module()
    trainer = make_trainer(tmp_path, callbacks=[Look()])
    for _ in range(2):  # the second fit finds our callbacks in their places
        trainer.fit_loop.epoch_progress.reset()
        trainer.fit(module, make_data())
    trainer.test(module, make_data(), verbose=False)
    assert [len(seen[name]) for name in sorted(seen)] == [1, 4, 4]
    assert len(set(seen["train_loss"])) == 4
    assert seen == after


@pytest.mark.slow
def test_a_run_that_a_callback_stops_logs_its_last_step(tmp_path):
    class Stop(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step >= 8

    logger = CSVLogger(tmp_path, "csv")
    trainer = make_trainer(
        tmp_path, logger=logger, log_every_n_steps=5, callbacks=[Stop()]
    )
    trainer.fit(make_module(1), make_data())
    logger.save()
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["train_loss_step"]]
    assert [int(row["step"]) for row in rows] == [4, 7]


@pytest.mark.slow
def test_a_timer_stops_the_run_within_a_dispatch(tmp_path):
    class Slow(pl.Callback):
        sees_every_batch = False

        def on_train_batch_start(self, *args):
            time.sleep(0.05)

    timer = Timer(datetime.timedelta(seconds=0.5), interval="step")
    trainer = make_trainer(tmp_path, max_epochs=-1, callbacks=[timer, Slow()])
    trainer.fit(make_module(4), make_data())
    assert 0.5 <= timer.time_elapsed("train") < 5.0
    assert trainer.global_step < 13 * 200


@pytest.mark.slow
def test_early_stopping_stops_where_the_metric_stops_falling(tmp_path):
    seen = []

    class Keep(pl.Callback):
        def on_validation_end(self, trainer, module):
            if not trainer.sanity_checking:
                seen.append(float(trainer.callback_metrics["val_loss"]))

    stop = EarlyStopping("val_loss", patience=2)
    trainer = make_trainer(tmp_path, max_epochs=100, callbacks=[Keep(), stop])
    trainer.fit(make_module(optimizer=optax.adam(0.3)), make_data())
    best = int(np.argmin(seen))
    assert trainer.current_epoch < 100
    assert len(seen) == best + 3
    assert np.isclose(float(stop.best_score), seen[best])


@pytest.mark.slow
def test_early_stopping_notices_a_loss_that_is_not_finite(tmp_path):
    stop = EarlyStopping("val_loss", check_finite=True, patience=100)
    trainer = make_trainer(tmp_path, max_epochs=50, callbacks=[stop])
    with pytest.warns(UserWarning, match="step [01] broke the run"):
        trainer.fit(make_module(optimizer=optax.sgd(1e30)), make_data())
    assert trainer.current_epoch < 5
    assert stop.stopping_reason_message is not None
    assert "not finite" in stop.stopping_reason_message


@pytest.mark.slow
def test_device_stats_are_logged_at_the_steps_that_loggers_see(tmp_path):
    logger = CSVLogger(tmp_path, "csv")
    trainer = make_trainer(
        tmp_path, logger=logger, log_every_n_steps=5, callbacks=[DeviceStatsMonitor()]
    )
    trainer.fit(make_module(8), make_data())
    with open(f"{logger.log_dir}/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    name = next(k for k in rows[0] if "on_train_batch_end" in k and "vm_percent" in k)
    steps = [int(row["step"]) for row in rows if row[name]]
    assert steps == [4, 9, 14, 19, 24]


@pytest.mark.slow
@pytest.mark.parametrize("profiler", [SimpleProfiler, AdvancedProfiler])
def test_a_profiler_times_the_hooks(tmp_path, profiler):
    profiler = profiler(dirpath=tmp_path, filename="times")
    trainer = make_trainer(tmp_path, max_epochs=1, profiler=profiler)
    trainer.fit(make_module(8), make_data())
    assert "training_step" in (tmp_path / "fit-times.txt").read_text()


def test_the_profiler_of_torch_is_rejected(tmp_path):
    profiler = PyTorchProfiler()
    profiler.teardown = lambda stage: None  # it objects to being dropped unused
    trainer = make_trainer(tmp_path, profiler=profiler)
    with pytest.raises(ValueError, match=r"jax\.profiler"):
        trainer.fit(make_module(), make_data())


class Saves(pl.Callback):
    sees_every_batch = False

    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 13:
            trainer.save_checkpoint(self.path)


@pytest.mark.slow
def test_a_checkpoint_written_in_a_thread_holds_the_step_it_was_taken_at(tmp_path):
    path, trainer = {}, {}
    for kind in ("plain", "async"):
        path[kind] = tmp_path / f"{kind}.ckpt"
        plugins = [AsyncCheckpointIO()] if kind == "async" else []
        trainer[kind] = make_trainer(
            tmp_path, plugins=plugins, callbacks=[Saves(path[kind])]
        )
        trainer[kind].fit(make_module(8), make_data())
    assert isinstance(trainer["async"].strategy.checkpoint_io, AsyncCheckpointIO)
    assert sealed(path["async"])
    plain, late = (load_verified(path[k])["state_dict"] for k in ("plain", "async"))
    assert all(torch.equal(plain[name], late[name]) for name in plain)
    assert late["run.step"] == 13


@pytest.mark.slow
def test_a_thread_around_a_plugin_of_the_users_is_left_alone(tmp_path):
    class Own(AtomicCheckpointIO):
        pass

    trainer = make_trainer(tmp_path, max_steps=1, plugins=[AsyncCheckpointIO(Own())])
    trainer.fit(make_module(1), make_data())
    outer: Any = trainer.strategy.checkpoint_io
    assert isinstance(outer.checkpoint_io, Own)


def explodes_at(step):
    def loss(model, batch, *, key):
        (x, y), _ = jaxprob.unpack(batch)
        error = jnp.mean((jax.vmap(lambda x: model(x, key=key))(x) - y) ** 2)
        return error, {}

    def schedule(count):
        return jnp.where(count == step, jnp.inf, 1e-3)

    optimizer = optax.chain(optax.sgd(1.0), optax.scale_by_schedule(schedule))
    return LearnerModule(
        jaxprob.GradientDescent(loss, optimizer), network(), steps_per_dispatch=8
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have turned on .*detect_anomaly")
def test_detect_anomaly_names_the_step_the_metric_and_the_leaf(tmp_path):
    trainer = make_trainer(tmp_path, detect_anomaly=True)
    with pytest.raises(FloatingPointError) as caught:
        trainer.fit(explodes_at(10), make_data())
    message = str(caught.value)
    # The update of step 10 is infinite, so step 11 is the first with a bad loss.
    assert "loss is nan at step 11" in message
    assert "model.layers.0.weight" in message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have turned on .*detect_anomaly")
def test_detect_anomaly_changes_no_bit(tmp_path):
    with_it, without = make_module(), make_module()
    make_trainer(tmp_path, detect_anomaly=True).fit(with_it, make_data())
    make_trainer(tmp_path).fit(without, make_data())
    assert bits(with_it) == bits(without)


@pytest.mark.slow
def test_without_detect_anomaly_the_run_goes_on(tmp_path):
    trainer = make_trainer(tmp_path)
    with pytest.warns(UserWarning, match=r"step 10 broke the run.*layers\.0\.weight"):
        trainer.fit(explodes_at(10), make_data())
    assert trainer.global_step == 26
