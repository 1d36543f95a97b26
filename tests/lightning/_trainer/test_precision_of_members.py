"""Ensembles under `Trainer(precision=...)`: no capability is lost on the way."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob.lightning import BNNModule, LearnerModule

from ..scene import arrays, bits_of, make_trainer


def doubles(rows=64):
    return tuple(a.astype(np.float64) for a in arrays(rows))


def ensemble(**kwargs):
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=64)
    method = bnn.DeepEnsemble(bnn.MAP(joint, optax.adam(1e-2)), num_members=4, **kwargs)
    return method, eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=jax.random.key(0))


def members(module):
    return bits_of(module.posterior())


def fitted(tmp_path, layout=None, **kwargs):
    method, model = ensemble(**kwargs)
    module = BNNModule(method, model, layout=layout, steps_per_dispatch=4, seed=0)
    trainer = make_trainer(tmp_path, max_epochs=1, precision="64-true")
    trainer.fit(module, jaxprob.ArrayLoader(doubles(), batch_size=16))
    return module


@pytest.mark.slow
def test_members_on_two_devices_in_double_precision(tmp_path):
    with jax.enable_x64(True):
        shared = fitted(tmp_path, layout=jaxprob.Layout(members=2))
        alone = fitted(tmp_path)
        leaves = [
            jax.tree.leaves(eqx.filter(m.posterior(), eqx.is_inexact_array))
            for m in (shared, alone)
        ]
        assert {leaf.dtype.name for leaf in leaves[0]} == {"float64"}
        for ours, theirs in zip(*leaves, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_members_in_sequence_in_double_precision(tmp_path):
    with jax.enable_x64(True):
        in_sequence = fitted(tmp_path, members="loop")
        together = fitted(tmp_path)
        capability = in_sequence._engine.run.active.capability(
            jaxprob.AbstractSequentialMembers
        )
        assert capability is not None
        assert capability.num_members == 4
        leaves = [
            jax.tree.leaves(eqx.filter(m.posterior(), eqx.is_inexact_array))
            for m in (in_sequence, together)
        ]
        for ours, theirs in zip(*leaves, strict=True):
            assert ours.dtype == np.float64
            assert np.all(np.isfinite(ours))
            assert ours.shape == theirs.shape


class Rooted(eqx.Module):
    inner: eqx.nn.Linear
    scale: jax.Array

    def __call__(self, x):
        return self.inner(jnp.sqrt(x * self.scale))


@jaxprob.mean_loss
def squared_error(model, example, *, key):
    x, y = example
    return jnp.sum((model(x) - y) ** 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:You have turned on .*detect_anomaly")
def test_a_broken_leaf_in_bfloat16_is_named(tmp_path):
    x = np.linspace(1, 2, 64, dtype=np.float32)[:, None]
    x[35] = 0.0  # the square root has no finite slope there
    model = Rooted(eqx.nn.Linear(1, 1, key=jax.random.key(0)), jnp.ones(1))
    learner = jaxprob.GradientDescent(squared_error, optax.sgd(1e-2))
    module = LearnerModule(learner, model, steps_per_dispatch=4)
    trainer = make_trainer(tmp_path, precision="bf16-true", detect_anomaly=True)
    with pytest.raises(jaxprob.NonFiniteError) as caught:
        trainer.fit(module, jaxprob.ArrayLoader((x, x), batch_size=8))
    assert (caught.value.step, caught.value.leaves) == (4, ["scale"])
