"""Low precision in the methods of `jaxprob.bnn`, and what is rejected."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

import jaxprob
from jaxprob import bnn
from jaxprob.bnn._weights.apply import call_model
from jaxprob.lightning import BNNModule, CheckpointMismatchError, LearnerModule

from ..scene import make_data, make_module, make_trainer

pytestmark = [
    # Lightning announces mixed precision as its own.
    pytest.mark.filterwarnings("ignore:.*Automatic Mixed Precision"),
]

METHODS = {
    "MAP": lambda joint: bnn.MAP(joint, optax.adam(1e-2)),
    "MeanFieldVI": lambda joint: bnn.MeanFieldVI(joint, optax.adam(1e-2)),
    "local": lambda joint: bnn.MeanFieldVI(joint, optax.adam(1e-2), estimator="local"),
    "DeepEnsemble": lambda joint: bnn.DeepEnsemble(
        bnn.MAP(joint, optax.adam(1e-2)), num_members=2
    ),
    "SGLD": lambda joint: bnn.SGLD(joint, 1e-4, num_warmup=2, thin=2, num_draws=2),
    "SWAG": lambda joint: bnn.SWAG(
        bnn.MAP(joint, optax.adam(1e-2)), num_warmup=2, thin=2, rank=2
    ),
}


def observed(make, seen, **options):
    note = seen.update  # a set that it reads would be compared

    def apply(model, x, *, key):
        out = call_model(model, x, key=key)
        weights = [w for w in jax.tree.leaves(model) if eqx.is_inexact_array(w)]
        note(str(a.dtype) for a in (x, out, *weights))
        return out

    joint = bnn.LogJoint(
        bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=100, apply=apply
    )
    model = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=jax.random.key(0))
    return BNNModule(make(joint), model, num_samples=4, steps_per_dispatch=4)


def float_dtypes(tree):
    leaves = jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array))
    return {str(leaf.dtype) for leaf in leaves}


class Forget(pl.Callback):
    """What was seen before training: the rows are checked with the model as it is."""

    sees_every_batch = False

    def __init__(self, seen):
        self.seen = seen

    def on_train_batch_start(self, *args):
        if not getattr(self, "begun", False):
            self.begun = True
            self.seen.clear()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_mixed_runs_the_network_low_and_keeps_the_parameters(tmp_path, method):
    seen = set()
    module = observed(METHODS[method], seen)
    trainer = make_trainer(
        tmp_path,
        max_steps=8,
        precision="bf16-mixed",
        limit_val_batches=0,
        callbacks=[Forget(seen)],
    )
    trainer.fit(module, make_data())
    assert seen == {"bfloat16"}
    assert float_dtypes(module.state) == {"float32"}
    validator = make_trainer(tmp_path, precision="bf16-mixed")
    found = validator.validate(module, make_data(), verbose=False)[0]
    assert np.isfinite(found["val_predictive_nll"])


@pytest.mark.slow
def test_mixed_keeps_the_prior_exact_and_the_likelihood_near(tmp_path):
    def first_step(precision):
        module = observed(METHODS["MAP"], set())
        values = {}
        step_log: Any = module._engine.dispatcher.step_log
        step_log.take = lambda trainer, metrics, *_: values.update(metrics)
        trainer = make_trainer(tmp_path, max_steps=1, precision=precision)
        trainer.fit(module, make_data())
        return values

    whole, mixed = first_step("32-true"), first_step("bf16-mixed")
    assert mixed["log_prior"] == whole["log_prior"]
    assert mixed["nll"] != whole["nll"]
    assert np.isclose(mixed["nll"], whole["nll"], rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MAP", "MeanFieldVI"])
def test_true_stores_and_computes_low(tmp_path, method):
    seen = set()
    module = observed(METHODS[method], seen)
    make_trainer(tmp_path, max_steps=4, precision="bf16-true").fit(
        module,
        make_data(),
    )
    assert "bfloat16" in seen
    assert float_dtypes(module.model) == {"bfloat16"}


def regression():
    """Rows on which bfloat16 and float32 give figures that differ."""

    @jaxprob.mean_loss
    def squared_error(model, example, *, key):
        return jnp.sum((model(example[0]) - example[1]) ** 2)

    model = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, dtype=jnp.float32, key=jax.random.key(0))
    learner = jaxprob.GradientDescent(squared_error, optax.adam(1e-2))
    return learner, model


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
def test_a_checkpoint_is_evaluated_in_the_precision_it_was_trained_in(
    tmp_path, precision
):
    with jax.enable_x64(precision == "64-true"):
        module, path = LearnerModule(*regression()), tmp_path / "a.ckpt"
        trainer = make_trainer(tmp_path, precision=precision)
        trainer.fit(module, make_data())
        trainer.save_checkpoint(path)
        expected = trainer.test(module, make_data(), verbose=False)
        predicted: Any = trainer.predict(module, make_data())
        learner, model = regression()
        loaded = LearnerModule.load_from_checkpoint(path, learner=learner, model=model)
        assert eqx.tree_equal(loaded.model, module.model)
        for asked in (precision, "32-true"):
            fresh = LearnerModule(*regression())
            tester = make_trainer(tmp_path, precision=asked)
            found = tester.test(fresh, make_data(), ckpt_path=path, verbose=False)
            assert found == expected
            again: Any = tester.predict(loaded, make_data())
            assert all(map(np.array_equal, again, predicted))
        assert eqx.tree_equal(loaded.model, module.model)
        with pytest.raises(CheckpointMismatchError, match="with its precision"):
            make_trainer(tmp_path, max_epochs=3).fit(
                LearnerModule(*regression()), make_data(), ckpt_path=path
            )


def test_a_double_checkpoint_says_what_it_needs(tmp_path):
    tensors = {
        name: tensor.double() if tensor.dtype == torch.float32 else tensor
        for name, tensor in LearnerModule(*regression()).state_dict().items()
    }
    with pytest.raises(CheckpointMismatchError, match="jax_enable_x64"):
        LearnerModule(*regression()).load_state_dict(tensors)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_a_module_as_it_was_made_is_evaluated_as_the_trainer_says(tmp_path, precision):
    def evaluated(module, precision):
        trainer = make_trainer(tmp_path, precision=precision)
        return trainer.validate(module, make_data(), verbose=False)[0]["val_loss"]

    module, plain = LearnerModule(*regression()), LearnerModule(*regression())
    assert evaluated(module, precision) != evaluated(plain, "32-true")
    # The fit begins where the model was made, and not where that was rounded to.
    for each in (module, plain):
        make_trainer(tmp_path, max_epochs=1).fit(each, make_data())
    assert eqx.tree_equal(module.state, plain.state)


def in_float16(folder, **options):
    """A Trainer as on a GPU, of which Lightning asks float16."""
    plugin = MixedPrecision("16-mixed", device="cpu")
    return make_trainer(folder, plugins=[plugin], **options)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["MAP", "MeanFieldVI", "DeepEnsemble", "SWAG"])
def test_float16_runs_the_network_low_and_scales_the_loss(tmp_path, method):
    seen = set()
    module = observed(METHODS[method], seen)
    before = module.model
    trainer = in_float16(
        tmp_path, max_steps=8, limit_val_batches=0, callbacks=[Forget(seen)]
    )
    trainer.fit(module, make_data())
    assert seen == {"float16"}
    assert float_dtypes(module.model) == {"float32"}
    scales = [
        node.scale
        for node in jax.tree.leaves(module.state, is_leaf=is_scaled)
        if is_scaled(node)
    ]
    assert scales
    assert all(np.all(np.isfinite(scale)) for scale in scales)
    assert not eqx.tree_equal(module.model, before)
    found = in_float16(tmp_path).validate(module, make_data(), verbose=False)[0]
    assert np.isfinite(found["val_predictive_nll"])


def is_scaled(node):
    return isinstance(node, jaxprob.LossScaleState)


@pytest.mark.slow
def test_float16_with_clipping_and_accumulation_ends_near_float32(tmp_path):
    """Both see the true gradient: of a scaled one, every norm would be clipped."""

    @jaxprob.mean_loss
    def squared_error(model, example, *, key):
        return jnp.sum((model(example[0]) - example[1]) ** 2)

    def trained(trainer):
        model = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=jax.random.key(0))
        learner = jaxprob.GradientDescent(squared_error, optax.sgd(0.1))
        module = LearnerModule(learner, model)
        trainer.fit(module, make_data())
        return module.state

    options = {"max_steps": 6, "gradient_clip_val": 0.5, "accumulate_grad_batches": 2}
    whole = trained(make_trainer(tmp_path / "a", **options))
    mixed = trained(in_float16(tmp_path / "b", **options))
    assert float(mixed.opt_state.scale) == 2.0**15  # no step was left out
    before = eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=jax.random.key(0))
    for a, b, start in zip(
        *(
            jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))
            for model in (whole.model, mixed.model, before)
        ),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-3)
        assert float(jnp.max(jnp.abs(a - start))) > 0.01


@pytest.mark.slow
def test_float16_resumes_with_its_scale(tmp_path):
    """The scale is in the checkpoint, beside the optimiser's state."""
    optimizer = jaxprob.dynamic_loss_scale(optax.adam(1e-2), growth_interval=3)
    whole = make_module(optimizer=optimizer)
    make_trainer(tmp_path, max_epochs=2).fit(whole, make_data())
    half, rest = (make_module(optimizer=optimizer) for _ in range(2))
    trainer = make_trainer(tmp_path, max_epochs=1)
    trainer.fit(half, make_data())
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    assert float(half.state.opt_state.scale) > 2.0**15
    make_trainer(tmp_path, max_epochs=2).fit(
        rest, make_data(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert eqx.tree_equal(rest.state, whole.state)


def test_on_lightnings_cpu_float16_becomes_bfloat16_and_it_says_so(tmp_path):
    with pytest.warns(UserWarning, match="not supported on CPU. Using `precision='bf"):
        trainer = make_trainer(tmp_path, precision="16-mixed", max_steps=1)
    assert trainer.precision == "bf16-mixed"


@pytest.mark.parametrize("method", ["SGLD", "IVON"])
def test_float16_is_rejected_where_no_loss_could_be_scaled(tmp_path, method):
    make = METHODS.get(method, lambda joint: bnn.IVON(joint, 0.1))
    module = observed(make, set())
    with pytest.raises(ValueError, match=f"{method} has no optax optimiser"):
        in_float16(tmp_path).fit(module, make_data())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_low_precision_is_rejected_where_a_sampler_accepts_by_it(tmp_path, precision):
    module = observed(lambda joint: bnn.NUTS(joint, num_warmup=2, num_draws=2), set())
    with pytest.raises(ValueError, match="log densities"):
        make_trainer(tmp_path, precision=precision).fit(module, make_data())


def test_mixed_is_rejected_where_there_is_nothing_to_lower(tmp_path):
    class Fixed(jaxprob.AbstractLearner):
        def init(self, model, *, key):
            return {"w": jnp.zeros(())}

        def update(self, state, batch, *, key):
            return state, {"loss": state["w"]}

        def evaluate(self, state, batch, *, key):
            return {"loss": state["w"]}

        def model(self, state):
            return state

    trainer = make_trainer(tmp_path, precision="bf16-mixed")
    with pytest.raises(ValueError, match="Fixed has no network"):
        trainer.fit(LearnerModule(Fixed(), None), make_data())


@pytest.mark.parametrize("precision", ["16-true", "transformer-engine"])
def test_a_precision_that_would_be_ignored_is_rejected(tmp_path, precision):
    # Lightning itself rejects some before we are asked.
    with pytest.raises((ValueError, ImportError, ModuleNotFoundError, TypeError)):
        make_trainer(tmp_path, precision=precision).fit(make_module(), make_data())


@pytest.mark.slow
def test_the_loss_of_evaluation_is_low_as_well(tmp_path):
    seen = set()
    note = seen.add  # a set that it reads would be compared

    def loss(name):
        def value(model, batch, *, key):
            (x, y), _ = jaxprob.unpack(batch)
            note((name, str(x.dtype)))
            return jnp.mean((jax.vmap(model)(x) - y) ** 2), {}

        return value

    learner = jaxprob.GradientDescent(
        loss("fit"), optax.sgd(0.1), evaluation_loss=loss("val")
    )
    module = LearnerModule(learner, eqx.nn.Linear(1, 1, key=jax.random.key(0)))
    trainer = make_trainer(tmp_path, max_epochs=1, precision="bf16-mixed")
    trainer.fit(module, make_data())
    assert seen == {("fit", "bfloat16"), ("val", "bfloat16")}
