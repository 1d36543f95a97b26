"""Modules as objects, models that are no Equinox modules, loaders that are not ours."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from .scene import arrays, bits, make_data, make_module, make_trainer


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
    assert np.array_equal(*weights)
    keys = [jax.random.key_data(each.state["key"]) for each in (module, twin)]
    assert np.array_equal(*keys)


class Regression(LearnerModule):
    """As a user writes a module that rebuilds itself from its checkpoint."""

    def __init__(self, width: int = 8, rate: float = 1e-2, inputs: int = 1):
        super().__init__(
            jaxprob.GradientDescent(no_loss, optax.adam(rate)),
            eqx.nn.MLP(inputs, 1, width, 1, key=jax.random.key(0)),
        )
        self.save_hyperparameters()


def test_hyperparameters_rebuild_the_module(tmp_path):
    module = Regression(width=5)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Regression.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.hparams.width == 5
    assert np.array_equal(loaded.model.layers[0].weight, module.model.layers[0].weight)


def apply(params, x):
    return params["scale"] * x + params["shift"]


@jaxprob.mean_loss
def dictionary_loss(params, example, *, key):
    x, y = example
    return jnp.sum((apply(params, x) - y) ** 2), {}


def test_a_dict_of_arrays_trains_and_resumes(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
    data = ArrayDataModule(train=(x, 3 * x - 1), batch_size=16)
    params = {"scale": jnp.zeros(1), "shift": jnp.zeros(1)}
    learner = jaxprob.GradientDescent(dictionary_loss, optax.sgd(0.1))
    module = LearnerModule(learner, params)
    trainer = make_trainer(tmp_path, max_epochs=60)
    trainer.fit(module, data)
    assert np.allclose(module.model["scale"], 3, atol=1e-3)
    assert np.allclose(module.model["shift"], -1, atol=1e-3)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = LearnerModule.load_from_checkpoint(
        tmp_path / "a.ckpt", learner=learner, model=params
    )
    assert np.array_equal(loaded.model["scale"], module.model["scale"])


# Lightning advises more workers for any DataLoader without.
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_torch_dataloader_gives_the_same_as_ours(tmp_path):
    x, y = arrays(96)
    ours, theirs = make_module(), make_module()
    loader = DataLoader(
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=8
    )
    make_trainer(tmp_path).fit(
        ours, jaxprob.ArrayLoader((x, y), batch_size=8, drop_last=True)
    )
    make_trainer(tmp_path).fit(theirs, loader)
    assert bits(ours) == bits(theirs)


def test_workers_that_fork_are_refused(tmp_path):
    rows = TensorDataset(torch.zeros(16, 1), torch.zeros(16, 1))
    loader = DataLoader(rows, batch_size=8, num_workers=2)
    with pytest.raises(ValueError, match="forkserver"):
        make_trainer(tmp_path).fit(make_module(), loader)


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
