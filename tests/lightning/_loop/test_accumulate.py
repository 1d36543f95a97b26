"""Accumulated batches: windows, counts, exact resume, and options that were changed."""

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
from jaxprob._training.accumulate import windows
from jaxprob.lightning import ArrayDataModule, CheckpointMismatchError, LearnerModule

from ..scene import arrays, bits, bits_of, make_data, make_module, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def squared_error(model, batch, *, key):
    (x, y), mask = jaxprob.unpack(batch)
    error = (jax.vmap(model)(x) - y)[:, 0] ** 2
    return jnp.sum(jnp.where(mask, error, 0.0)) / mask.shape[0], {}


@pytest.mark.parametrize("steps", [1, 4])
def test_a_window_is_full_or_ends_with_the_epoch(tmp_path, steps):
    model = eqx.nn.Linear(1, 1, key=jax.random.key(0))
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(0.1))
    module = LearnerModule(learner, model, steps_per_dispatch=steps)
    data = ArrayDataModule(train=arrays(20), batch_size=4, seed=3)
    trainer = make_trainer(tmp_path, max_epochs=2, accumulate_grad_batches=2)
    trainer.fit(module, data)
    assert trainer.global_step == 6

    w, b = np.asarray(model.weight)[0, 0], np.asarray(model.bias)[0]
    x, y = (a[:, 0] for a in arrays(20))
    for epoch in range(2):
        order = np.random.default_rng((3, epoch)).permutation(20).reshape(5, 4)
        for window in (order[:2], order[2:4], order[4:]):
            rows = window.ravel()
            error = w * x[rows] + b - y[rows]
            w, b = w - 0.2 * np.mean(error * x[rows]), b - 0.2 * np.mean(error)
    assert np.allclose(module.model.weight, w, atol=1e-6)
    assert np.allclose(module.model.bias, b, atol=1e-6)


class Estimates(pl.Callback):
    """Asks for the number of updates, as who builds a schedule does."""

    def setup(self, trainer, module, stage):
        self.updates = trainer.estimated_stepping_batches


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_run_is_as_long_as_estimated_and_resumes_within_a_window(tmp_path):
    def run(*callbacks, **kwargs):
        module, estimates = make_module(4), Estimates()
        trainer = make_trainer(
            tmp_path,
            enable_checkpointing=bool(callbacks),
            callbacks=[estimates, *callbacks],
            accumulate_grad_batches=3,
            val_check_interval=5,
        )
        trainer.fit(module, make_data(), **kwargs)
        assert trainer.global_step == estimates.updates == 10
        return bits(module)

    names = "{epoch}-{step}-x"
    whole = run(ModelCheckpoint(tmp_path, names, save_top_k=-1))
    found = sorted(tmp_path.glob("*.ckpt"))
    assert len(found) == 4  # after batches 5 and 10 of 13 in each epoch
    for path in found:
        assert run(ckpt_path=path) == whole, path.name


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run of two epochs, and its checkpoints after the first and within a window."""
    folder = tmp_path_factory.mktemp("saved")
    module = make_module(4)
    make_trainer(
        folder,
        enable_checkpointing=True,
        callbacks=[ModelCheckpoint(folder, "{epoch}", every_n_epochs=1, save_top_k=-1)],
    ).fit(module, make_data())
    return folder, eqx.filter(module.model, eqx.is_array)


def resumed(folder, tmp_path, module, **options):
    make_trainer(tmp_path, **options).fit(
        module, make_data(), ckpt_path=folder / "epoch=0.ckpt"
    )
    return module


def moments(module) -> Any:
    """Adam's, whatever is round it."""
    nodes = jax.tree.leaves(
        module.state.opt_state,
        is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState),
    )
    return next(n for n in nodes if isinstance(n, optax.ScaleByAdamState))


def test_clipping_that_is_added_goes_on_with_the_same_optimiser(tmp_path, saved):
    # So large that it changes nothing but, as another program, the last digit.
    folder, whole = saved
    module = resumed(folder, tmp_path, make_module(4), gradient_clip_val=1e9)
    found = eqx.filter(module.model, eqx.is_array)
    same = jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), found, whole)
    assert all(jax.tree.leaves(same))


CHANGED = {
    "accumulation": (
        {"accumulate_grad_batches": 2},
        None,
        r"accumulate_grad_batches=\.\.\.\) was added",
    ),
    "schedule": ({}, optax.adam(lambda count: 1e-2), "a schedule was added"),
    "chain": ({}, optax.chain(optax.clip(1e9), optax.adam(1e-2)), None),
}


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.filterwarnings("ignore:.trainer.fit. stopped")
def test_what_is_added_leaves_the_moments_of_the_optimiser(tmp_path, saved, name):
    folder, _ = saved
    options, optimizer, match = CHANGED[name]
    reference = resumed(folder, tmp_path, make_module(4), max_epochs=1)
    module = make_module(4, optimizer)
    if match is None:
        resumed(folder, tmp_path, module, max_epochs=1, **options)
    else:
        with pytest.warns(UserWarning, match=match):
            resumed(folder, tmp_path, module, max_epochs=1, **options)
    assert bits_of(moments(module)) == bits_of(moments(reference))
    assert int(moments(module).count) == 13
    if name == "schedule":
        counts = [s for s in module.state.opt_state if hasattr(s, "count")]
        assert [int(s.count) for s in counts] == [13, 13]
    if name == "accumulation":
        (window,) = windows(module.state)
        assert int(window.num_accumulated) == 0
        assert int(window.num_updates) == 13


def test_another_optimiser_is_named(tmp_path, saved):
    folder, _ = saved
    with pytest.raises(CheckpointMismatchError, match=r"no .*mu.*another one"):
        resumed(folder, tmp_path, make_module(4, optax.sgd(0.1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Trainer.accumulate_grad_batches")
def test_a_window_that_is_cut_is_rejected_by_the_name_of_the_option(tmp_path):
    saving = ModelCheckpoint(tmp_path, "{epoch}", every_n_train_steps=5)
    make_trainer(
        tmp_path,
        max_steps=5,
        max_epochs=-1,
        enable_checkpointing=True,
        callbacks=[saving],
    ).fit(make_module(4), make_data())
    with pytest.raises(CheckpointMismatchError, match="accumulate_grad_batches=3"):
        resumed(tmp_path, tmp_path, make_module(4), accumulate_grad_batches=3)
