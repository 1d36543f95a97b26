"""Fit, validate, test, predict: what each stage does, and what it must not do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
from pytorch_lightning.strategies.launchers.subprocess_script import (
    _SubprocessScriptLauncher,
)

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import (
    arrays,
    bits,
    bits_of,
    make_data,
    make_learner,
    make_module,
    make_trainer,
    network,
    predicted,
)


@pytest.mark.slow
def test_fit_through_lightning_is_the_plain_loop_bit_for_bit(tmp_path):
    module, data = make_module(steps_per_dispatch=8), make_data()
    make_trainer(tmp_path, max_epochs=3).fit(module, data)

    learner = make_learner()
    init_key, run_key, _ = jax.random.split(jax.random.key(0), 3)
    state = learner.init(network(), key=init_key)
    stepper = jaxprob.Stepper(learner, state, key=run_key, steps_per_dispatch=1)
    loader = jaxprob.ArrayLoader(arrays(100), batch_size=8, shuffle=True)
    for epoch in range(3):
        loader.set_epoch(epoch)
        stepper(loader)
    assert bits(module) == bits_of(stepper.state)


@pytest.mark.slow
def test_training_lowers_the_validation_loss(tmp_path):
    module, data = make_module(), make_data(rows=200)
    trainer = make_trainer(tmp_path, max_epochs=15)
    before = trainer.validate(module, data, verbose=False)[0]["val_loss"]
    trainer.fit(module, data)
    after = trainer.validate(module, data, verbose=False)[0]["val_loss"]
    assert after < 0.5 * before


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_no_stage_but_fit_changes_a_bit(tmp_path, stage):
    module, data = make_module(), make_data()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    before = bits(module)
    getattr(trainer, stage)(module, data)
    assert bits(module) == before


@pytest.mark.slow
def test_validation_inside_fit_changes_no_bit(tmp_path):
    with_validation, without = make_module(), make_module()
    data = make_data()
    make_trainer(tmp_path, val_check_interval=3).fit(with_validation, data)
    make_trainer(tmp_path, limit_val_batches=0).fit(without, data)
    assert bits(with_validation) == bits(without)


@pytest.mark.slow
def test_metrics_are_means_over_examples_not_over_batches(tmp_path):
    # 20 rows in batches of 8: the last batch holds 4 rows and 4 of padding.
    module, data = make_module(), make_data()
    trainer = make_trainer(tmp_path)
    found = trainer.validate(module, data, verbose=False)[0]["val_loss"]

    learner = make_learner()
    loader = jaxprob.ArrayLoader(arrays(20, 1), batch_size=8)
    _, _, eval_key = jax.random.split(jax.random.key(0), 3)
    total = 0.0
    for index, batch in enumerate(loader):
        key = jax.random.fold_in(jax.random.fold_in(eval_key, 0), index)
        info = learner.evaluate(module.state, batch, key=key)
        total += float(info["loss"]) * int(batch.mask.sum())
    assert np.isclose(found, total / 20, rtol=1e-6)


@pytest.mark.slow
def test_predict_gives_a_row_for_each_row(tmp_path):
    module, data = make_module(), make_data()
    trainer = make_trainer(tmp_path)
    trainer.fit(module, data)
    out = predicted(trainer, module, data)
    model = eqx.nn.inference_mode(module.model)
    expected = jax.vmap(model)(jnp.asarray(arrays(20, 3)[0]))
    assert out.shape == (20, 1)
    assert np.allclose(out, expected, atol=1e-6)


def test_two_validation_loaders_are_reported_apart(tmp_path):
    module = make_module()
    loaders = [jaxprob.ArrayLoader(arrays(20, seed), batch_size=8) for seed in (1, 2)]
    both = make_trainer(tmp_path).validate(module, loaders, verbose=False)
    alone = make_trainer(tmp_path).validate(module, loaders[0], verbose=False)
    merged = {name: value for part in both for name, value in part.items()}
    assert set(merged) == {
        f"val_{name}/dataloader_idx_{i}" for name in ("loss", "rmse") for i in (0, 1)
    }
    assert merged["val_loss/dataloader_idx_0"] == alone[0]["val_loss"]
    assert merged["val_loss/dataloader_idx_1"] != alone[0]["val_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 5, 64, "auto"])
def test_the_number_of_steps_in_a_dispatch_changes_no_bit(tmp_path, steps):
    reference, module = make_module(1), make_module(steps)
    make_trainer(tmp_path, max_steps=31, max_epochs=-1).fit(reference, make_data())
    trainer = make_trainer(tmp_path, max_steps=31, max_epochs=-1)
    trainer.fit(module, make_data())
    assert trainer.global_step == 31
    assert bits(module) == bits(reference)
    if steps == "auto":
        assert (
            1 < module._engine.run.stepper.capacity <= 16
        )  # of 13 batches in an epoch


@pytest.mark.slow
def test_fitting_again_goes_on(tmp_path):
    module, data = make_module(), make_data()
    make_trainer(tmp_path, max_epochs=1).fit(module, data)
    once = bits(module)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, data)
    assert bits(module) != once
    assert trainer.global_step == 13
    assert module.state_dict()["run.step"] == 26


@pytest.mark.slow
def test_the_state_a_user_holds_survives_further_training(tmp_path):
    module, data = make_module(), make_data()
    make_trainer(tmp_path).fit(module, data)
    state, model = module.state, module.model
    before = bits_of(state)
    make_trainer(tmp_path).fit(module, data)
    assert bits_of(state) == before
    assert np.isfinite(np.asarray(model.layers[0].weight)).all()


@pytest.mark.slow
def test_the_gradient_is_clipped_as_the_trainer_says(tmp_path):
    def run(**kwargs):
        module = make_module(optimizer=optax.sgd(1.0))
        start = module.state.model.layers[0].weight, module.state.model.layers[3].weight
        make_trainer(tmp_path, max_steps=1, **kwargs).fit(module, make_data())
        end = module.state.model
        moved = (end.layers[0].weight - start[0], end.layers[3].weight - start[1])
        return np.concatenate([np.ravel(m) for m in moved])

    assert np.linalg.norm(run()) > 1e-2
    assert np.linalg.norm(run(gradient_clip_val=1e-3)) <= 1.001e-3
    by_value = run(gradient_clip_val=1e-3, gradient_clip_algorithm="value")
    assert np.abs(by_value).max() <= 1.001e-3
    assert np.linalg.norm(by_value) > 1.001e-3


@pytest.mark.slow
def test_jax_and_numpy_scalars_are_logged(tmp_path):
    class Logging(LearnerModule):
        def on_train_epoch_end(self):
            self.log("from_jax", jnp.asarray(1.5))
            self.log("from_numpy", np.float64(2.5))
            self.log("from_python", 3.5)

    module = Logging(make_learner(), network())
    trainer = make_trainer(tmp_path)
    trainer.fit(module, make_data())
    logged = {k: float(v) for k, v in trainer.callback_metrics.items()}
    assert logged["from_jax"] == 1.5
    assert logged["from_numpy"] == 2.5
    assert logged["from_python"] == 3.5


@pytest.mark.slow
def test_a_callback_that_looks_sees_the_metrics_of_its_own_step(tmp_path):
    seen = []

    class Look(pl.Callback):
        sees_every_batch = False

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            seen.append(
                (
                    trainer.global_step,
                    float(trainer.callback_metrics["train_loss_step"]),
                )
            )

    make_trainer(tmp_path, max_steps=12, callbacks=[Look()]).fit(
        make_module(1), make_data()
    )
    one = dict(seen)
    seen.clear()
    make_trainer(tmp_path, max_steps=12, callbacks=[Look()]).fit(
        make_module(4), make_data()
    )
    assert [step for step, _ in seen] == [4, 8, 12]
    assert all(one[step] == value for step, value in seen)


@pytest.mark.parametrize("kwargs", [{"devices": 2}, {"strategy": "ddp"}])
def test_torch_processes_are_rejected_with_the_call_that_works(
    tmp_path, kwargs, monkeypatch
):
    # Lightning starts its child scripts before any hook of ours, runs the whole test
    # suite in them, and kills this process when one of them fails.
    monkeypatch.setattr(
        _SubprocessScriptLauncher, "_call_children_scripts", lambda self: None
    )
    with pytest.raises(ValueError, match="devices=1"):
        make_trainer(tmp_path, **kwargs).fit(make_module(), make_data())


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"train": (np.ones((3, 1)), np.ones((2, 1)))}, ValueError, "train: .*differ"),
        ({"train": np.array([[0.0], [np.nan]])}, ValueError, "train: .*row 1"),
        ({"train": np.ones((0, 1))}, ValueError, "train: .*empty"),
        ({"validation": np.array([["a", None]], object)}, TypeError, "validation: "),
        ({}, ValueError, "no arrays"),
    ],
)
def test_bad_arrays_are_rejected_before_training(arrays, error, message):
    with pytest.raises(error, match=message):
        ArrayDataModule(**arrays)


def test_a_stage_without_arrays_says_what_is_missing(tmp_path):
    data = ArrayDataModule(train=arrays(16))
    with pytest.raises(ValueError, match="give test="):
        make_trainer(tmp_path).test(make_module(), data)


@pytest.mark.slow
def test_barebones_trains_to_the_same_bits(tmp_path):
    plain, bare = make_module(), make_module()
    make_trainer(tmp_path).fit(plain, make_data())
    trainer = pl.Trainer(
        barebones=True, max_epochs=2, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.fit(bare, make_data())
    assert trainer.global_step == 26
    assert bits(bare) == bits(plain)
