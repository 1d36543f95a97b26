"""Models of every JAX package through Lightning: as a loop of one's own trains them."""

import pathlib
import runpy
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob.lightning import ArrayDataModule, LearnerModule

from ..scene import arrays, bits, make_trainer

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "06_any_jax_model.py"
ROWS, EPOCHS = 96, 4


@pytest.fixture(autouse=True)
def as_a_user_runs_it():
    # stax adds a bias of one axis to a batch of two.
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


def test_every_package_is_in_the_example(example):
    pytest.importorskip("flax", reason="an optional group: jaxprob[frameworks]")
    assert list(example["MODELS"]) == NAMES


NAMES = [
    "Equinox",
    "dict of arrays",
    "stax",
    "pure functions",
    "Flax Linen",
    "Flax NNX",
]


class Case:
    """A package's model, trained through Lightning once, half and again from there."""

    def __init__(self, example, name, folder):
        if "Flax" in name:
            pytest.importorskip("flax", reason="an optional group: jaxprob[frameworks]")
        self.make = example["MODELS"][name]
        self.model, self.apply = self.make(jax.random.key(0))
        self.loss = example["squared_error"](self.apply)
        self.learner = jaxprob.GradientDescent(self.loss, optax.adam(1e-2))
        self.data = ArrayDataModule(
            train=arrays(ROWS), validation=arrays(20, 1), batch_size=8, drop_last=True
        )
        self.folder = folder
        self.end = folder / "end.ckpt"
        self.module = self.fit(EPOCHS, save=self.end)

    def fit(self, epochs, resume=None, save=None):
        module = LearnerModule(self.learner, self.model, steps_per_dispatch=8)
        trainer = make_trainer(self.folder, max_epochs=epochs)
        trainer.fit(module, self.data, ckpt_path=resume)
        if save is not None:
            trainer.save_checkpoint(save)
        return module


@pytest.fixture(scope="module", params=NAMES)
def case(request, example, tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    with jax.numpy_rank_promotion("allow"):
        return Case(example, request.param, folder)


@pytest.mark.slow
def test_lightning_trains_as_a_loop_of_optax(case):
    optimizer = optax.adam(1e-2)
    params, rest = eqx.partition(case.model, eqx.is_inexact_array)
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, opt_state, batch):
        def loss(params):
            return case.loss(eqx.combine(params, rest), batch, key=None)[0]

        value, grads = jax.value_and_grad(loss)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    x, y = arrays(ROWS)
    losses = []
    for epoch in range(EPOCHS):
        order = np.random.default_rng((0, epoch)).permutation(ROWS)
        for rows in order.reshape(-1, 8):
            params, opt_state, value = step(params, opt_state, (x[rows], y[rows]))
            losses.append(float(value))
    ours = jax.tree.leaves(eqx.filter(case.module.model, eqx.is_inexact_array))
    for a, b in zip(ours, jax.tree.leaves(params), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    assert np.mean(losses[-12:]) < 0.9 * np.mean(losses[:12])


def test_a_run_stopped_and_resumed_ends_in_the_same_bits(case, tmp_path):
    path = tmp_path / "half.ckpt"
    case.fit(EPOCHS // 2, save=path)
    assert bits(case.fit(EPOCHS, resume=path)) == bits(case.module)


def test_a_checkpoint_gives_the_model_back(case):
    other, _ = case.make(jax.random.key(1))
    loaded = LearnerModule.load_from_checkpoint(
        case.end, learner=case.learner, model=other
    )
    x, _ = arrays(5, 3)
    trained = case.apply(case.module.model, x)
    assert not np.array_equal(case.apply(other, x), trained)
    assert np.array_equal(case.apply(loaded.model, x), trained)
    assert type(loaded.model) is type(case.model)


@pytest.fixture
def dropout_net():
    nnx = pytest.importorskip("flax.nnx", reason="jaxprob[frameworks]")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(1, 64, rngs=rngs)
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, rngs=None):
            return self.dropout(self.linear(x), rngs=rngs)

    def error(out):
        return jnp.mean((out - 1.0) ** 2)

    def loss(net, batch, *, key):
        (x, _), _ = jaxprob.unpack(batch)
        return error(net(x, rngs=nnx.Rngs(dropout=key))), {}

    def evaluation_loss(net, batch, *, key):
        (x, _), _ = jaxprob.unpack(batch)
        return error(nnx.view(net, deterministic=True)(x)), {}

    net = Net(nnx.Rngs(0))
    learner = jaxprob.GradientDescent(
        loss, optax.sgd(0.0), evaluation_loss=evaluation_loss
    )
    return net, learner, error


@pytest.mark.slow
def test_dropout_of_flax_is_new_in_each_step_and_off_in_validation(
    tmp_path, dropout_net
):
    net, learner, error = dropout_net
    x, y = arrays(8)
    module = LearnerModule(learner, net, steps_per_dispatch=4)
    values = []
    step_log: Any = module._engine.dispatcher.step_log
    step_log.take = lambda trainer, metrics, *_: values.extend(metrics["loss"])
    trainer = make_trainer(tmp_path, max_epochs=4)
    data = ArrayDataModule(train=(x, y), validation=(x, y), batch_size=8)
    trainer.fit(module, data)
    assert len(set(values)) == len(values) == 4
    plain = error(net.linear(x))
    assert np.isclose(trainer.callback_metrics["val_loss"], plain, rtol=1e-5)
