"""Modules as objects: copies, pickles, hyper-parameters, hooks of their own."""

import copy
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from .scene import arrays, bits, make_data, make_module, make_trainer


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


@pytest.mark.slow
def test_hyperparameters_rebuild_the_module(tmp_path):
    module = Regression(width=5)
    trainer = make_trainer(tmp_path)
    trainer.fit(module, make_data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = Regression.load_from_checkpoint(tmp_path / "a.ckpt")
    assert loaded.hparams.width == 5
    assert np.array_equal(loaded.model.layers[0].weight, module.model.layers[0].weight)


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
