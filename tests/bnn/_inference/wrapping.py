"""Learners, and what is to hold of any wrapper around them, capability by capability.

A new capability joins `CHECKS`; a new wrapper joins the table of a test beside it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn
from jaxprob._training.learner import CAPABILITIES
from jaxprob.bnn._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
)

KEY = jax.random.key(3)
SEEN: set[str] = set()


class Net(eqx.Module):
    body: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    head: eqx.nn.Linear

    def __init__(self, key):
        body_key, head_key = jax.random.split(key)
        self.body = eqx.nn.Linear(2, 2, key=body_key)
        self.dropout = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(2, "scalar", key=head_key)

    def __call__(self, x, *, key=None):
        return self.head(self.dropout(jnp.tanh(self.body(x)), key=key))


NET = Net(jax.random.key(0))
X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
BATCH = X, np.sin(X[:, 0])


def apply(model, x, *, key):
    SEEN.add(str(model.head.weight.dtype))
    return model(x, key=key)


def joint():
    likelihood = bnn.NormalLikelihood(0.3)
    return bnn.LogJoint(likelihood, bnn.FanInNormal(), len(X), apply=apply)


def point():
    return bnn.MAP(joint(), optax.sgd(1e-2))


def ensemble(method=None, **settings):
    method = point() if method is None else method
    return bnn.DeepEnsemble(method, 3, make="shuffled", **settings)


CHAINS: dict[str, Any] = {"num_warmup": 0, "thin": 1, "num_draws": 2, "num_chains": 2}

LEARNERS: dict[str, Callable[[], bnn.AbstractInference]] = {
    "MAP": point,
    "AnchoredMAP": lambda: bnn.AnchoredMAP(joint(), optax.sgd(1e-2)),
    "MeanFieldVI": lambda: bnn.MeanFieldVI(joint(), optax.sgd(1e-2)),
    "IVON": lambda: bnn.IVON(joint(), 1e-2, beta2=0.5),
    "SGLD": lambda: bnn.SGLD(joint(), 1e-4, **CHAINS),
    "NUTS": lambda: bnn.NUTS(joint(), **CHAINS),
    "MCLMC": lambda: bnn.MCLMC(joint(), **CHAINS),
    "ensemble": ensemble,
    "sequential ensemble": lambda: ensemble(members="loop"),
    "Laplace": lambda: bnn.Laplace(point()),
    "SWAG": lambda: bnn.SWAG(point(), num_warmup=0, thin=1),
}


def leaves(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(leaves(first), leaves(second), strict=True):
        assert np.array_equal(a, b)


def check_data_check(wrapper, capability, inner):
    # Values that are not finite are found before, in one scan of the engine.
    short = X, BATCH[1][:4]
    with pytest.raises(ValueError, match="x has 6 rows and y has 4"):
        capability.check(NET, short)
    with pytest.raises(ValueError, match="x has 6 rows and y has 4"):
        capability.check_training(NET, short)
    with pytest.raises(ValueError, match="x has 6 rows and y has 4"):
        capability.check_batches(NET, training=True)(short)


def check_gradient(wrapper, capability, inner):
    state = wrapper.init(NET, key=KEY)
    found = eqx.filter_jit(capability.gradient)(state, BATCH, key=KEY)
    if inner is not None:
        state = wrapper.inner_state(state)
        expected = eqx.filter_jit(inner.gradient)(state, BATCH, key=KEY)
        assert_same(found, expected)
    assert all(np.isfinite(leaf).all() for leaf in leaves(found))
    assert any(np.any(leaf) for leaf in leaves(found))


def check_members(wrapper, capability, inner):
    state = wrapper.init(NET, key=KEY)
    axis = capability.members_axis(state)
    flags = jax.tree.leaves(axis)
    lengths = {
        leaf.shape[0]
        for leaf, flag in zip(jax.tree.leaves(state), flags, strict=True)
        if flag and eqx.is_array(leaf)
    }
    assert lengths == {capability.num_members}
    new, each = eqx.filter_jit(capability.update_members)(state, BATCH, key=KEY)
    same, means = eqx.filter_jit(wrapper.update)(state, BATCH, key=KEY)
    for a, b in zip(leaves(new), leaves(same), strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6)
    for name, values in each.items():
        assert values.shape == (capability.num_members,)
        assert np.allclose(values.mean(), means[name], rtol=1e-6)


def check_sequential(wrapper, capability, inner):
    state = wrapper.init(NET, key=KEY)
    together, _ = eqx.filter_jit(wrapper.update)(state, BATCH, key=KEY)
    update = eqx.filter_jit(capability.update_member)
    for index in range(capability.num_members):
        own = jax.tree.map(lambda a, i=index: a[i] if eqx.is_array(a) else a, state)
        new, _ = update(own, BATCH, key=KEY, index=jnp.asarray(index))
        for a, b in zip(leaves(new), leaves(together), strict=True):
            assert np.allclose(a, b[index], rtol=1e-5, atol=1e-6)


def check_optimized(wrapper, capability, inner):
    still = capability.map_optimizers(lambda optimizer: optax.set_to_zero())
    assert type(still) is type(wrapper)
    state = still.init(NET, key=KEY)
    after, _ = eqx.filter_jit(still.update)(state, BATCH, key=KEY)
    assert_same(still.model(after), still.model(state))


def check_low_precision(wrapper, capability, inner):
    low = capability.in_low_precision("bfloat16")
    assert type(low) is type(wrapper)
    state = low.init(NET, key=KEY)
    SEEN.clear()
    eqx.filter_eval_shape(low.evaluate, state, BATCH, key=KEY)
    assert {"bfloat16"} == SEEN


def check_mark(wrapper, capability, inner):
    """A mark has nothing but its class."""


def check_trained_models(wrapper, capability, inner):
    state = wrapper.init(NET, key=KEY)
    models = capability.models(state)
    assert all(isinstance(model, Net) for model in models)
    found = np.stack([model.body.weight for model in models])
    assert np.array_equal(found.ravel(), np.ravel(state.model.body.weight))


def check_conditional(wrapper, capability, inner):
    restricted = capability.restricted("head")
    model = eqx.nn.inference_mode(NET)
    posterior = restricted.capability(AbstractConditional).infer(
        model, BATCH, key=KEY, num_steps=2
    )
    draw = posterior.sample(key=KEY)
    assert_same(draw.body, model.body)


CHECKS = {
    jaxprob.AbstractDataCheck: check_data_check,
    jaxprob.AbstractGradient: check_gradient,
    jaxprob.AbstractMembers: check_members,
    jaxprob.AbstractSequentialMembers: check_sequential,
    jaxprob.AbstractOptimized: check_optimized,
    jaxprob.AbstractLowPrecision: check_low_precision,
    jaxprob.AbstractAcceptReject: check_mark,
    AbstractTrainedModels: check_trained_models,
    AbstractConditional: check_conditional,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A wrapper, and how it differs from one that forwards every capability.

    **Arguments:**

    - `make`: `make(learner)`.
    - `has`: capabilities that it has whatever is inside.
    - `lacks`: capabilities that it has not, though the learner inside may.
    - `takes`: names of the learners that it does not reject; all by default.
    """

    make: Callable
    has: frozenset = frozenset()
    lacks: frozenset = frozenset()
    takes: tuple[str, ...] | None = None

    def expected(self, learner):
        return {
            kind
            for kind in CAPABILITIES
            if kind in self.has
            or (kind not in self.lacks and learner.capability(kind) is not None)
        }


def found(learner):
    return {kind for kind in CAPABILITIES if learner.capability(kind) is not None}
