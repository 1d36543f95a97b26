"""Modules as objects: copies, pickles, hyper-parameters, hooks of their own."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import jaxprob
from jaxprob.lightning import (
    ArrayDataModule,
    CheckpointMismatchError,
    LearnerModule,
)

from ..scene import (
    arrays,
    bits,
    bits_of,
    make_data,
    make_learner,
    make_module,
    make_trainer,
    network,
)


@pytest.mark.slow
def test_a_copy_goes_on_as_the_original(tmp_path):
    module = make_module()
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data())
    twin = copy.deepcopy(module)
    assert bits(twin) == bits(module)
    for each in (module, twin):
        make_trainer(tmp_path, max_epochs=1).fit(each, make_data())
    assert bits(twin) == bits(module)


def no_loss(model, batch, *, key):
    (x, _), _ = jaxprob.unpack(batch)
    return jnp.mean(jax.vmap(model)(x) ** 2), {}


class Descent(jaxprob.AbstractLearner):
    """A learner that can be pickled, for it holds no closure; a key in its state."""

    def init(self, model, *, key):
        return {"model": model, "key": key}

    def update(self, state, batch, *, key):
        value, grads = eqx.filter_value_and_grad(no_loss, has_aux=True)(
            state["model"], batch, key=key
        )
        model = eqx.apply_updates(
            state["model"], jax.tree.map(lambda g: -0.1 * g, grads)
        )
        return {"model": model, "key": state["key"]}, {"loss": value[0]}

    def evaluate(self, state, batch, *, key):
        return {"loss": no_loss(state["model"], batch, key=key)[0]}

    def model(self, state):
        return state["model"]


def test_a_pickled_module_goes_on_as_the_original(tmp_path):
    module = LearnerModule(Descent(), eqx.nn.Linear(1, 1, key=jax.random.key(0)))
    make_trainer(tmp_path, max_epochs=1).fit(module, make_data())
    twin = pickle.loads(pickle.dumps(module))
    for each in (module, twin):
        make_trainer(tmp_path, max_epochs=1).fit(each, make_data())
    weights = [np.asarray(each.model.weight) for each in (module, twin)]
    assert np.array_equal(weights[0], weights[1])
    keys = [jax.random.key_data(each.state["key"]) for each in (module, twin)]
    assert np.array_equal(keys[0], keys[1])


class Regression(LearnerModule):
    """As a user writes a module that rebuilds itself from its checkpoint."""

    def __init__(self, width: int = 8, rate: float = 1e-2, inputs: int = 1):
        super().__init__(
            jaxprob.GradientDescent(no_loss, optax.adam(rate)),
            eqx.nn.MLP(inputs, 1, width, 1, key=jax.random.key(0)),
        )
        self.save_hyperparameters()


@pytest.mark.slow
def test_hyperparameters_rebuild_the_module(tmp_path):
    module = Regression(width=5)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Regression.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.hparams.width == 5
    assert np.array_equal(loaded.model.layers[0].weight, module.model.layers[0].weight)


class WithTorch(LearnerModule):
    """A module that holds something of torch's beside the model."""

    seen: torch.Tensor

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("seen", torch.zeros(2))
        self.head = torch.nn.Linear(2, 1)


@pytest.mark.slow
def test_what_a_subclass_holds_in_torch_is_in_its_checkpoints(tmp_path):
    module, path = WithTorch(make_learner(), network()), tmp_path / "a.ckpt"
    module.seen += 5
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(path)
    assert set(torch.load(path, weights_only=True)["state_dict"]) > {"seen", "run.step"}
    resumed = WithTorch(make_learner(), network())
    make_trainer(tmp_path, max_epochs=1).fit(resumed, make_data(), ckpt_path=path)
    loaded = WithTorch.load_from_checkpoint(
        path, learner=make_learner(), model=network()
    )
    assert bits(resumed) == bits(module)
    for each in (resumed, loaded):
        assert bits_of(each.model) == bits_of(module.model)
        assert torch.equal(each.seen, module.seen)
        assert torch.equal(each.head.weight, module.head.weight)


def test_torch_names_that_are_missing_or_too_many_are_named():
    tensors = WithTorch(make_learner(), network()).state_dict()
    with pytest.raises(CheckpointMismatchError, match=r"the module has no head\.bias"):
        make_module().load_state_dict(tensors)
    with pytest.raises(CheckpointMismatchError, match=r"lacks head\.bias"):
        WithTorch(make_learner(), network()).load_state_dict(make_module().state_dict())
    missing, unexpected = make_module().load_state_dict(tensors, strict=False)
    assert not missing
    assert unexpected == ["head.bias", "head.weight", "seen"]


def test_a_module_around_optax_cannot_be_pickled_and_can_be_copied():
    module = make_module()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(module)
    assert bits(copy.deepcopy(module)) == bits(module)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hook", ["on_before_batch_transfer", "on_after_batch_transfer"]
)
def test_a_transfer_hook_is_applied_to_every_batch(tmp_path, hook):
    seen = []

    class Counting(ArrayDataModule):
        pass

    def count(self, batch, dataloader_idx):
        seen.append(dataloader_idx)
        return batch

    setattr(Counting, hook, count)
    data = Counting(train=arrays(104), batch_size=8)
    make_trainer(tmp_path, max_epochs=1).fit(make_module(8), data)
    assert len(seen) == 13
