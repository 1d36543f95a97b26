"""What the Trainer asks of the optimiser step: done in JAX, or rejected."""

import datetime
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
    LearningRateMonitor,
    ModelCheckpoint,
)

import jaxprob
from jaxprob import bnn
from jaxprob.lightning import ArrayDataModule, LearnerModule
from jaxprob.lightning._trainer.options import Options

from .._loop.traces import Recorder
from ..scene import arrays, bits, make_data, make_module, make_trainer


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2), {}


def linear(dtype=jnp.float32):
    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf.astype(dtype), model)


def linear_module(optimizer, **kwargs):
    learner = jaxprob.GradientDescent(squared_error, optimizer)
    return LearnerModule(learner, linear(), steps_per_dispatch=4, **kwargs)


@pytest.mark.slow
def test_accumulated_batches_make_one_update_of_their_mean(tmp_path):
    module = linear_module(optax.sgd(0.1))
    trainer = make_trainer(tmp_path, max_epochs=1, accumulate_grad_batches=4)
    trainer.fit(module, ArrayDataModule(train=arrays(96), batch_size=8))
    assert trainer.global_step == 3  # updates, as in torch

    whole = linear_module(optax.sgd(0.1))
    make_trainer(tmp_path, max_epochs=1).fit(
        whole, ArrayDataModule(train=arrays(96), batch_size=32)
    )
    a, b = module.model, whole.model
    assert np.allclose(a.weight, b.weight, atol=1e-6)
    assert np.allclose(a.bias, b.bias, atol=1e-6)


@pytest.mark.slow
def test_the_trainer_keeps_its_options_for_another_fit(tmp_path):
    trainer = make_trainer(
        tmp_path, max_steps=2, gradient_clip_val=1e-3, accumulate_grad_batches=2
    )
    module = linear_module(optax.sgd(1.0))
    before = module.model
    trainer.fit(module, make_data())
    moved = jax.tree.map(lambda a, b: a - b, module.model, before)
    assert optax.tree.norm(moved) <= 2.001e-3  # two updates, both clipped
    assert trainer.gradient_clip_val == 1e-3
    assert trainer.accumulate_grad_batches == 2


def test_a_learner_without_an_optimiser_says_so(tmp_path):
    class Fixed(jaxprob.AbstractLearner):
        def init(self, model, *, key):
            return {"w": jnp.zeros(())}

        def update(self, state, batch, *, key):
            return {"w": state["w"] + 1.0}, {"loss": state["w"]}

        def evaluate(self, state, batch, *, key):
            return {"loss": state["w"]}

        def model(self, state):
            return state

    trainer = make_trainer(tmp_path, gradient_clip_val=1.0)
    with pytest.raises(ValueError, match="Fixed has no optax optimiser"):
        trainer.fit(LearnerModule(Fixed(), None), make_data())


MIXED = {"bf16-mixed": jnp.float32, "bf16-true": jnp.bfloat16}


@pytest.mark.parametrize("precision", MIXED)
@pytest.mark.filterwarnings("ignore:.*Automatic Mixed Precision")
def test_low_precision_computes_low_and_stores_as_it_says(tmp_path, precision):
    seen = []
    note = seen.append  # a list that it reads would be compared

    def loss(model, batch, *, key):
        (x, y), _ = jaxprob.unpack(batch)
        out = jax.vmap(model)(x)
        note((x.dtype, model.weight.dtype, out.dtype))
        return jnp.mean((out - y) ** 2), {}

    learner = jaxprob.GradientDescent(loss, optax.sgd(0.1))
    module = LearnerModule(learner, linear(), steps_per_dispatch=4)
    make_trainer(tmp_path, max_steps=8, precision=precision).fit(module, make_data())
    assert {dtype for triple in seen for dtype in triple} == {jnp.dtype("bfloat16")}
    assert module.model.weight.dtype == MIXED[precision]


@pytest.mark.slow
def test_mixed_precision_keeps_updates_that_bfloat16_would_round_away(tmp_path):
    rows = np.ones((8, 1), np.float32), np.full((8, 1), 100.0, np.float32)

    def moved(precision):
        module = linear_module(optax.sgd(1e-6))
        # A value that bfloat16 holds exactly: only updates can change it.
        module.load_state_dict(
            module.state_dict()
            | {"state.model.weight": torch.full((1, 1), 0.5)}
            | {"state.model.bias": torch.full((1,), 0.5)}
        )
        make_trainer(tmp_path, max_steps=3, max_epochs=-1, precision=precision).fit(
            module, ArrayDataModule(train=rows, batch_size=8)
        )
        return abs(float(module.model.weight[0, 0]) - 0.5)

    assert moved("bf16-mixed") > 0
    assert moved("bf16-true") == 0


@pytest.mark.slow
def test_double_precision_needs_x64_and_then_is_double(tmp_path):
    with pytest.raises(ValueError, match="jax_enable_x64"):
        make_trainer(tmp_path, precision="64-true").fit(
            linear_module(optax.sgd(0.1)), make_data()
        )
    with jax.enable_x64(True):
        module = linear_module(optax.sgd(0.1))
        make_trainer(tmp_path, max_steps=3, precision="64-true").fit(
            module, make_data()
        )
        assert module.model.weight.dtype == jnp.float64


@pytest.mark.parametrize("precision", ["16-true"])
def test_half_precision_is_rejected(tmp_path, precision):
    with pytest.raises(ValueError, match="bf16-mixed"):
        make_trainer(tmp_path, precision=precision).fit(make_module(), make_data())


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 8])
def test_the_learning_rate_monitor_shows_the_schedule(tmp_path, steps):
    schedule: Any = optax.linear_schedule(1.0, 0.0, 26)
    logged = []

    class Keep(Recorder):
        def log_metrics(self, metrics, step=None):
            if "lr-OptaxOptimizer" in metrics:
                logged.append((step, float(metrics["lr-OptaxOptimizer"])))

    module = make_module(steps, optax.adam(schedule), lr_schedule=schedule)
    make_trainer(
        tmp_path,
        logger=Keep(),
        log_every_n_steps=5,
        callbacks=[LearningRateMonitor("step")],
    ).fit(module, make_data())
    assert [step for step, _ in logged] == [4, 9, 14, 19, 24]
    assert np.allclose([lr for _, lr in logged], [schedule(s) for s, _ in logged])


@pytest.mark.slow
def test_the_schedule_is_shown_at_the_updates_the_optimiser_has_made(tmp_path):
    """Of accumulated batches, and in a second Trainer whose own count is zero."""
    logged = []

    class Keep(Recorder):
        def log_metrics(self, metrics, step=None):
            if "lr-OptaxOptimizer" in metrics:
                logged.append(float(metrics["lr-OptaxOptimizer"]))

    def schedule(count):
        return 1e-3 * jnp.asarray(count, jnp.float32)

    module = make_module(8, optax.sgd(schedule), lr_schedule=schedule)
    for _ in range(2):
        make_trainer(
            tmp_path,
            max_epochs=1,
            logger=Keep(),
            log_every_n_steps=2,
            accumulate_grad_batches=3,
            callbacks=[LearningRateMonitor("step")],
        ).fit(module, make_data())
    # Thirteen batches of an epoch make five updates. Lightning's monitor logs at every
    # batch of an update that loggers want, and we show it the last one of each.
    assert np.allclose(logged, [1e-3 * count for count in (1, 3, 5 + 1, 5 + 3)])
    # Without accumulation the same optimiser goes on, after its ten updates.
    make_trainer(tmp_path, max_steps=1).fit(module, make_data())
    assert module.learning_rate == pytest.approx(11e-3)


@pytest.mark.slow
def test_an_injected_learning_rate_is_found(tmp_path):
    module = make_module(8, optax.inject_hyperparams(optax.adam)(learning_rate=0.25))
    make_trainer(tmp_path, max_steps=2).fit(module, make_data())
    assert module.learning_rate == 0.25


def test_train_time_interval_saves(tmp_path):
    saving = ModelCheckpoint(
        tmp_path, train_time_interval=datetime.timedelta(0), save_top_k=-1
    )
    make_trainer(
        tmp_path, max_epochs=1, enable_checkpointing=True, callbacks=[saving]
    ).fit(make_module(1), make_data())
    assert len(list(tmp_path.glob("*.ckpt"))) == 13


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5, 8])
def test_logging_every_step_gives_each_step_its_own_value(tmp_path, steps):
    values = {}

    class Keep(Recorder):
        def log_metrics(self, metrics, step=None):
            if "train_loss_step" in metrics:
                values[step] = metrics["train_loss_step"]

    module = make_module(steps)
    make_trainer(tmp_path, logger=Keep(), log_every_n_steps=1).fit(module, make_data())
    assert list(values) == list(range(26))
    reference = make_module(1)
    expected = {}

    class Look(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            step = trainer.global_step - 1
            expected[step] = float(trainer.callback_metrics["train_loss_step"])

    make_trainer(tmp_path, callbacks=[Look()]).fit(reference, make_data())
    assert values == expected
    assert bits(module) == bits(reference)


@pytest.mark.parametrize(
    "option",
    [
        {"gradient_clip_val": 1.0},
        {"accumulate_grad_batches": 4},
        {"precision": "16-mixed"},
    ],
)
def test_what_does_not_reach_all_weights_is_rejected(option):
    """The optimiser of IVON is for points alone, as that of a block is for its own."""
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=96)
    ivon = bnn.IVON(joint, 0.1, point_optimizer=optax.adam(1e-2))
    chain = bnn.SGLD(joint, 1e-3, num_warmup=0, thin=1, num_draws=2)
    blocks = bnn.Blocks(bnn.MAP(joint, optax.adam(1e-2)), {"weight": chain})
    options = Options(
        clip=option.get("gradient_clip_val"),
        accumulate=option.get("accumulate_grad_batches", 1),
        precision=option.get("precision", "32-true"),
    )
    for method, name in ((ivon, "IVON"), (blocks, "SGLD")):
        with pytest.raises(ValueError, match=f"{name} has no optax optimiser"):
            options.apply(method)
