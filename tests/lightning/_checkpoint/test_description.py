"""A checkpoint says what module wrote it, and no other one takes its weights."""

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxprob
from jaxprob import bnn, diffusion
from jaxprob.datasets import Standardizer
from jaxprob.lightning import (
    ArrayDataModule,
    BNNModule,
    CheckpointCorruptError,
    CheckpointMismatchError,
    DiffusionModule,
    LearnerModule,
)

from ..scene import bits_of, make_trainer

ROWS = np.random.default_rng(0).normal(3.0, 5.0, (32, 2)).astype(np.float32)
SCALER = Standardizer.fit(ROWS)


class Scaled(ArrayDataModule):
    """A data module that standardises."""

    def __init__(self, scaler=SCALER):
        self.x_scaler = scaler
        super().__init__(train=scaler(ROWS), predict=scaler(ROWS[:4]), batch_size=16)


def denoiser(schedule=None, predict="edm", **kwargs):
    net = diffusion.nn.ResidualMLP(2, width=4, depth=1, key=jax.random.key(0))
    schedule = diffusion.VP.linear() if schedule is None else schedule
    return diffusion.Preconditioned(net, schedule, predict, **kwargs)


def make(model=None, rate=1e-3, ema: Any = 0.99, loss=None):
    loss = diffusion.DenoisingLoss() if loss is None else loss
    ema = None if ema is None else jaxprob.EMA(ema)
    return DiffusionModule(
        jaxprob.GradientDescent(loss, optax.adam(rate), ema=ema),
        denoiser() if model is None else model,
        shape=(2,),
        sampler=diffusion.Heun(3),
        seed=7,
        num_previews=0,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A module and its checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    module, trainer = make(), make_trainer(folder, max_epochs=1)
    trainer.fit(module, Scaled())
    trainer.save_checkpoint(folder / "a.ckpt")
    return module, folder / "a.ckpt"


@pytest.mark.slow
def test_a_module_of_our_classes_needs_nothing_but_its_checkpoint(trained):
    module, path = trained
    again = DiffusionModule.load_from_checkpoint(path)
    assert bits_of(again.model) == bits_of(module.model)
    assert jax.tree.structure(again.model) == jax.tree.structure(module.model)
    assert np.array_equal(again.sample(3).x_0, module.sample(3).x_0)
    assert again.sampler == module.sampler
    assert again.learner.ema == module.learner.ema
    assert again.x_scaler.equals(SCALER)
    assert np.array_equal(again.x_scaler.mean, SCALER.mean)  # in double precision


@pytest.mark.slow
def test_what_no_checkpoint_holds_is_asked_for(tmp_path, trained):
    """It can be given, beside what the checkpoint has."""
    _, path = trained
    again = DiffusionModule.load_from_checkpoint(path)
    with pytest.raises(ValueError, match=r"without an optax .* give .*learner="):
        make_trainer(tmp_path, max_epochs=1).fit(again, Scaled())
    learner = make(rate=0.5).learner
    again = DiffusionModule.load_from_checkpoint(path, learner=learner, guidance=0.0)
    before = bits_of(again.model)
    make_trainer(tmp_path, max_epochs=1).fit(again, Scaled())
    assert bits_of(again.model) != before


OTHERS = {
    "predict": (lambda: make(denoiser(predict="eps")), "predict: .* 'edm', .* 'eps'"),
    "schedule": (lambda: make(denoiser(diffusion.EDM())), "schedule: .* VP.* EDM"),
    "rate": (lambda: make(denoiser(diffusion.VP.linear(0.2))), "beta_min: .*0.1.*0.2"),
    "sigma_data": (lambda: make(denoiser(sigma_data=0.5)), "sigma_data: .* 1.0.*0.5"),
    "condition": (lambda: make(denoiser(condition_on="time")), "condition_on: "),
    "ema": (lambda: make(ema=0.9), r"learner\.ema\.decay: .* 0\.99, .* 0\.9"),
    "no ema": (lambda: make(ema=None), r"learner\.ema: "),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_another_module_is_rejected_by_name(tmp_path, trained, name):
    other, message = OTHERS[name]
    _, path = trained
    module = other()
    before = bits_of(module.state)
    for stage in ("fit", "test", "predict"):
        data = ArrayDataModule(train=ROWS, test=ROWS, predict=ROWS)
        run = getattr(make_trainer(tmp_path, max_epochs=2), stage)
        with pytest.raises(CheckpointMismatchError, match=message):
            run(module, data, ckpt_path=path)
    with pytest.raises(CheckpointMismatchError, match=message):
        DiffusionModule.load_from_checkpoint(
            path, learner=module.learner, denoiser=module.model, shape=(2,)
        )
    assert bits_of(module.state) == before


@pytest.mark.slow
def test_what_trains_may_change_and_says_so(trained):
    module, _ = trained
    tensors = module.state_dict()
    other = make(rate=0.5)
    other.load_state_dict(tensors)  # an optimiser is nobody's concern here
    assert bits_of(other.model) == bits_of(module.model)
    other = make(loss=diffusion.DenoisingLoss(diffusion.MinSNR()))
    with pytest.warns(UserWarning, match=r"learner\.loss\.weighting: .* has MinSNR"):
        other.load_state_dict(tensors)
    with pytest.warns(UserWarning, match="predict"):
        make(denoiser(predict="eps")).load_state_dict(tensors, strict=False)


@pytest.mark.slow
def test_data_in_other_units_are_noticed(tmp_path, trained):
    _, path = trained
    module = DiffusionModule.load_from_checkpoint(path)
    other = Standardizer(SCALER.mean + 1.0, SCALER.std)
    with pytest.warns(UserWarning, match="x_scaler has mean .* in other units"):
        make_trainer(tmp_path).predict(module, Scaled(other))
    assert module.x_scaler.equals(SCALER)


@pytest.mark.slow
def test_the_description_is_a_text_that_is_checked(trained):
    _, path = trained
    tensors = torch.load(path, weights_only=True)["state_dict"]
    text = json.loads(bytes(tensors["run.description"].numpy()))
    assert text["model"]["fields"]["predict"] == "edm"
    assert text["versions"]["jaxprob"] == jaxprob.__version__
    without = {k: v for k, v in tensors.items() if k != "run.description"}
    with pytest.raises(CheckpointMismatchError, match=r"lacks run\.description"):
        make().load_state_dict(without)
    claim = text["model"]["fields"]["net"]["fields"]["first"]["fields"]["weight"]
    claim["shape"] = [2**20, 2**20]
    for content, error in (
        (text | {"format": 99}, "format 99"),
        ({}, "cannot be read"),
        (text, "claims"),
    ):
        raw = np.frombuffer(json.dumps(content).encode(), np.uint8).copy()
        checkpoint = {"state_dict": tensors | {"run.description": torch.tensor(raw)}}
        torch.save(checkpoint, path.with_name("other.ckpt"))
        with pytest.raises(CheckpointCorruptError, match=error):
            DiffusionModule.load_from_checkpoint(path.with_name("other.ckpt"))


@pytest.mark.slow
def test_a_method_of_bnn_comes_back_with_its_joint(tmp_path):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=32)
    net = eqx.nn.MLP(2, 1, 4, 1, activation=jnp.tanh, key=jax.random.key(0))
    module = BNNModule(bnn.MeanFieldVI(joint, optax.adam(1e-2)), net, num_samples=3)
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, ArrayDataModule(train=(ROWS, ROWS[:, :1])))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = BNNModule.load_from_checkpoint(tmp_path / "a.ckpt")
    assert again.num_samples == 3
    assert np.array_equal(
        again.predictive(ROWS[:4]).mean, module.predictive(ROWS[:4]).mean
    )


class Own(eqx.Module):
    """A model of the user's, with a constant that nothing trains."""

    grid: np.ndarray
    linear: eqx.nn.Linear

    def __call__(self, x):
        return self.linear(x + self.grid)


@pytest.mark.slow
def test_a_model_of_the_users_is_given_and_compared(tmp_path):
    def loss(model, batch, *, key):
        return jnp.mean(jax.vmap(model)(batch) ** 2), {}

    def module(grid):
        model = Own(np.full(2, grid), eqx.nn.Linear(2, 1, key=key))
        return LearnerModule(jaxprob.GradientDescent(loss, optax.sgd(0.1)), model)

    key = jax.random.key(0)
    tensors = module(1).state_dict()
    other = module(2)
    other.load_state_dict(tensors)
    assert other.model.grid.tolist() == [1, 1]  # what is no weight comes along
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointMismatchError, match=r"Own: code .*path, model="):
        LearnerModule.load_from_checkpoint(tmp_path / "a.ckpt")
