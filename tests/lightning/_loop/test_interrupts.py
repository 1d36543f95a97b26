"""Errors and signals inside a dispatch of a Trainer's run: nothing is lost by them.

All runs share one learner, whose programs are compiled once. A host callback asks in
each step whether anything is to happen there.
"""

import os
import signal
import threading
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
from lightning_fabric.plugins.environments import SLURMEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint, OnExceptionCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.trainer.connectors import signal_connector

import jaxprob
from jaxprob._engine.held_signals import HELD
from jaxprob.lightning import (
    ArrayDataModule,
    CheckpointWriteError,
    LearnerModule,
    SaveOnSignal,
)
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

from ..scene import arrays, bits, bits_of, make_trainer, network

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:.*fit.ckpt_path="),
]

EPOCHS, PER_EPOCH = 3, 13


class Run:
    """A class, for its attributes are no constants of the compiled step."""

    events: ClassVar[dict[int, object]] = {}
    """What happens in a step: a function without arguments."""

    gone_at: ClassVar[int | None] = None
    """The step at which memory ends, for all steps from then on."""

    gone = False


EVENTS = Run.events


class SensorError(Exception):
    """An error of the user's own."""


def fail():
    raise SensorError("a sensor is broken")


def send(number):
    return lambda: os.kill(os.getpid(), number)


def happen(step):
    if Run.gone_at is not None and (Run.gone or int(step) == Run.gone_at):
        Run.gone = True
        raise MemoryError
    event: Any = Run.events.pop(int(step), None)
    if event is fail:
        Run.events[int(step)] = event  # as often as the step is made
    if event is not None:
        event()
    return np.float32(0)


def loss(model, batch, *, key, step):
    zero = jax.pure_callback(happen, jax.ShapeDtypeStruct((), jnp.float32), step)
    return quiet_loss(model, batch, key=key)[0] + zero, {}


def quiet_loss(model, batch, *, key):
    (x, y), mask = jaxprob.unpack(batch)
    outputs = jax.vmap(model)(x, key=jax.random.split(key, len(x)))
    return jaxprob.masked_mean(jnp.sum((outputs - y) ** 2, 1), mask), {}


LEARNER = jaxprob.GradientDescent(
    loss, optax.adam(1e-2), ema=jaxprob.EMA(0.99), evaluation_loss=quiet_loss
)
MODEL = network()


def make_module(steps_per_dispatch=8, cls=LearnerModule):
    return cls(LEARNER, MODEL, steps_per_dispatch=steps_per_dispatch)


def data():
    return ArrayDataModule(train=arrays(100), validation=arrays(20, 1), batch_size=8)


def run(folder, *callbacks, module=None, ckpt_path=None, **kwargs):
    module = make_module() if module is None else module
    trainer = make_trainer(
        folder,
        max_epochs=EPOCHS,
        callbacks=list(callbacks),
        **{"enable_checkpointing": bool(callbacks), **kwargs},
    )
    trainer.fit(module, data(), ckpt_path=ckpt_path)
    return module


def on_exception(folder):
    return ModelCheckpoint(
        dirpath=folder, filename="failed", save_on_exception=True, save_top_k=0
    )


@pytest.fixture(autouse=True)
def nothing_happens():
    numbers = signal.valid_signals() - {signal.SIGALRM}  # that is pytest's
    before = {number: signal.getsignal(number) for number in numbers}
    EVENTS.clear()
    yield
    assert {number: signal.getsignal(number) for number in numbers} == before
    assert not HELD._pending


@pytest.fixture(scope="module")
def states():
    """The state before each step of an undisturbed run, by one dispatch each."""
    found = {}

    class Keep(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            found[trainer.global_step] = bits(pl_module)

    run("unused", Keep(), module=make_module(1), enable_checkpointing=False)
    return found


@pytest.mark.parametrize(("step", "capacity"), [(1, 8), (13, 8), (21, 8), (38, 1)])
def test_an_error_in_a_step_is_raised_and_the_step_before_it_saved(
    tmp_path, states, step, capacity
):
    EVENTS[step] = fail
    module = make_module(capacity)
    with pytest.raises(SensorError, match="a sensor is broken"):
        run(tmp_path, on_exception(tmp_path), module=module)
    assert bits(module) == states[step]
    path = tmp_path / "failed.ckpt"
    checkpoint = load_verified(path)
    assert checkpoint["global_step"] == step
    assert checkpoint["epoch"] == step // PER_EPOCH
    EVENTS.clear()
    assert bits(run(tmp_path, ckpt_path=path)) == states[EPOCHS * PER_EPOCH]


class Rows:
    """A logger of loss by step."""

    def __init__(self, folder):
        self.logger = CSVLogger(folder)
        self.found = {}
        log = self.logger.log_metrics

        def log_metrics(metrics, step=None):
            if "train_loss_step" in metrics:
                self.found[step] = metrics["train_loss_step"]
            log(metrics, step)

        self.logger.log_metrics = log_metrics


@pytest.mark.parametrize("step", [13, 20])
def test_the_loggers_get_each_step_once_before_and_after_an_error(tmp_path, step):
    logged = {}
    for name, event in (("whole", None), ("failed", fail)):
        rows = Rows(tmp_path / name)
        run_kwargs = {"logger": rows.logger, "log_every_n_steps": 1}
        module, path = make_module(), None
        if event:
            EVENTS[step] = event
            with pytest.raises(SensorError):
                run(tmp_path, on_exception(tmp_path), module=module, **run_kwargs)
            path = tmp_path / "failed.ckpt"
            EVENTS.clear()
            assert sorted(rows.found) == list(range(step))
        run(tmp_path, module=make_module(), ckpt_path=path, **run_kwargs)
        logged[name] = rows.found
    assert logged["failed"] == logged["whole"]
    assert sorted(logged["whole"]) == list(range(EPOCHS * PER_EPOCH))


def test_a_second_checkpoint_callback_finds_the_same(tmp_path, states):
    """`OnExceptionCheckpoint` writes before ours knows of the error, in any order."""
    EVENTS[21] = fail
    with pytest.raises(SensorError):
        run(tmp_path, OnExceptionCheckpoint(tmp_path, "other"), on_exception(tmp_path))
    for name in ("other", "failed"):
        assert load_verified(tmp_path / f"{name}.ckpt")["global_step"] == 21


@pytest.mark.parametrize(("step", "before", "copied"), [(30, 26, 21), (38, 34, 21)])
def test_without_memory_the_last_copy_is_saved_and_no_step_lost(
    tmp_path, states, step, before, copied, monkeypatch
):
    """The copy is of another epoch, and is counted so in the checkpoint alone."""
    monkeypatch.setattr("jaxprob._engine.last_good.MAX_BYTES", 1200)  # two dispatches
    monkeypatch.setattr("jaxprob._engine.last_good.MAX_SECONDS", np.inf)
    monkeypatch.setattr(Run, "gone", False)
    monkeypatch.setattr(Run, "gone_at", step)
    module, path = make_module(), tmp_path / "failed.ckpt"
    callbacks, enabled = [on_exception(tmp_path)], {"enable_checkpointing": True}
    trainer = make_trainer(tmp_path, max_epochs=EPOCHS, callbacks=callbacks, **enabled)
    with pytest.raises(MemoryError) as caught:
        trainer.fit(module, data())
    assert f"the last {before - copied} steps" in caught.value.__notes__[-1]
    checkpoint = load_verified(path)
    assert checkpoint["global_step"] == copied
    assert checkpoint["epoch"] == copied // PER_EPOCH
    monkeypatch.setattr(Run, "gone_at", None)
    assert (trainer.global_step, trainer.current_epoch) == (before, before // PER_EPOCH)
    assert bits(module) == states[before]
    assert bits(run(tmp_path, ckpt_path=path)) == states[EPOCHS * PER_EPOCH]


@pytest.mark.parametrize("error", [OSError("no space"), KeyboardInterrupt()])
def test_a_checkpoint_that_fails_too_hides_no_error(tmp_path, error):
    class Full(ModelCheckpoint):
        def _save_checkpoint(self, trainer, filepath):
            raise CheckpointWriteError("the disk is full")

    class Fail(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            raise error

    full = Full(tmp_path, save_on_exception=True, every_n_epochs=EPOCHS + 1)
    if isinstance(error, OSError):
        with pytest.raises(OSError, match="no space") as caught:
            run(tmp_path, Fail(), full)
        assert "the disk is full" in caught.value.__notes__[-1]
    else:
        with (
            pytest.warns(UserWarning, match="the disk is full"),
            pytest.raises(SystemExit) as caught,
        ):
            run(tmp_path, Fail(), full)
        assert caught.value.__context__ is error


@pytest.mark.parametrize(
    ("number", "step"), [(signal.SIGINT, 3), (signal.SIGINT, 12), (signal.SIGALRM, 22)]
)
def test_a_handler_that_raises_does_so_between_two_dispatches(
    tmp_path, states, number, step
):
    class Told(BaseException):
        pass

    def handler(number, frame):
        raise Told

    if number != signal.SIGINT:
        before = signal.signal(number, handler)
    EVENTS[step] = send(number)
    module = make_module()
    with pytest.raises(SystemExit if number == signal.SIGINT else Told):
        run(tmp_path, on_exception(tmp_path), module=module)
    if number != signal.SIGINT:
        assert signal.signal(number, before) is handler
    path = tmp_path / "failed.ckpt"
    saved = load_verified(path)["global_step"]
    assert step < saved <= step + 8
    assert bits(module) == states[saved]
    assert bits(run(tmp_path, ckpt_path=path)) == states[EPOCHS * PER_EPOCH]


@pytest.mark.parametrize("step", [12, 22])
def test_slurm_gets_a_checkpoint_that_resumes(tmp_path, states, step, monkeypatch):
    """Lightning's handler writes it at once, wherever the run is."""
    for name in ("NTASKS", "NNODES", "JOB_NUM_NODES", "JOB_ID"):
        monkeypatch.setenv(f"SLURM_{name}", "1")
    for name in ("PROCID", "LOCALID", "NODEID"):
        monkeypatch.setenv(f"SLURM_{name}", "0")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setattr(signal_connector, "call", lambda command, **_: 0)
    EVENTS[step] = send(signal.SIGUSR1)
    module = run(tmp_path, plugins=[SLURMEnvironment()])
    assert bits(module) == states[EPOCHS * PER_EPOCH]  # it goes on
    path = tmp_path / "hpc_ckpt_1.ckpt"
    assert step < load_verified(path)["global_step"] <= step + 8
    for name in ("NTASKS", "NNODES", "JOB_NUM_NODES", "JOB_ID", "JOB_NAME"):
        monkeypatch.delenv(f"SLURM_{name}")
    path = path.rename(tmp_path / "requeued.ckpt")
    assert bits(run(tmp_path, ckpt_path=path)) == states[EPOCHS * PER_EPOCH]


WINDOWS = (
    "setup", "on_fit_start", "on_sanity_check_start", "on_train_start",
    "on_train_batch_start", "on_validation_end", "on_save_checkpoint", "on_train_end",
    "on_fit_end",
)  # fmt: skip


@pytest.mark.parametrize("hook", WINDOWS)
def test_no_instant_of_a_fit_is_deaf(tmp_path, states, hook):
    """The handler that was there before stands for the death of the process."""
    lost = []
    before = signal.signal(signal.SIGUSR1, lambda *_: lost.append(hook))

    class Send(pl.Callback):
        sees_every_batch = False
        sent = False

    def once(self, *args, **kwargs):
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGUSR1)

    setattr(Send, hook, once)
    callbacks = [Send(), SaveOnSignal(tmp_path), ModelCheckpoint(tmp_path / "others")]
    try:
        with pytest.raises(SystemExit) as left:
            run(tmp_path, *callbacks)
    finally:
        ours: Any = signal.signal(signal.SIGUSR1, before)
    assert left.value.code == 75
    assert not lost
    assert ours.__name__ == "<lambda>"
    path = SaveOnSignal.latest(tmp_path)
    assert bits(run(tmp_path, ckpt_path=path)) == states[EPOCHS * PER_EPOCH]


def test_the_first_signal_decides(tmp_path):
    """Slurm sends SIGUSR1 before the limit, and SIGTERM at it."""

    def both():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    EVENTS[5] = both
    with pytest.raises(SystemExit) as left:
        run(tmp_path, SaveOnSignal(tmp_path))
    assert left.value.code == 75


def test_other_threads_read_and_train(tmp_path, states):
    module, errors, read, ended = make_module(), [], [], threading.Event()

    def look():
        while not ended.is_set():
            try:
                read.append(bits_of(module.state))
                eqx.filter(module.model, eqx.is_array)
            except BaseException as error:
                errors.append(error)

    def fit():
        try:
            run(tmp_path, module=module)
        except BaseException as error:
            errors.append(error)
        ended.set()

    threads = [threading.Thread(target=target) for target in (look, fit)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert bits(module) == states[EPOCHS * PER_EPOCH]
    known = [*states.values(), bits(make_module())]
    assert all(found in known for found in read)


class StepByStep(LearnerModule):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("event", [fail, send(signal.SIGINT)])
def test_a_module_that_sees_each_batch(tmp_path, states, event):
    EVENTS[17] = event
    module = make_module(cls=StepByStep)
    with pytest.raises((SensorError, SystemExit)):
        run(tmp_path, on_exception(tmp_path), module=module)
    step = 17 if event is fail else 18
    assert bits(module) == states[step]
    assert load_verified(tmp_path / "failed.ckpt")["global_step"] == step
    EVENTS.clear()
    again = make_module(cls=StepByStep)
    run(tmp_path, module=again, ckpt_path=tmp_path / "failed.ckpt")
    assert bits(again) == states[EPOCHS * PER_EPOCH]


def test_an_error_in_a_hook_of_the_end_leaves_no_signal_held(tmp_path):
    class Worse(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            raise OSError("the disk is full")

    EVENTS[5] = fail
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(OSError, match="the disk is full"):
        run(tmp_path, Worse())
    signal.signal(signal.SIGTERM, before)  # Lightning leaves its own
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        while HELD._users:
            HELD.uninstall()
