"""A user's slip is named where it is made, and not by JAX further down."""

import equinox as eqx
import jax
import numpy as np
import optax
import pytest

import jaxprob
from jaxprob import bnn

from ..unhooked import unhooked

X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
Y = X[:, :1]
NET = eqx.nn.Linear(2, 1, key=jax.random.key(0))
JOINT = bnn.LogJoint(bnn.NormalLikelihood(0.3), bnn.FanInNormal(), num_data=20)
MAP = bnn.MAP(JOINT, optax.adam(1e-2))
VI = bnn.MeanFieldVI(JOINT, optax.adam(1e-2))
HMC = bnn.HMC(JOINT, num_leapfrog=2, num_warmup=2, num_draws=2, num_chains=1)


def state():
    return MAP.init(NET)


def vi():
    return VI.posterior(VI.init(NET, key=jax.random.key(0)))


def predictive(x=X):
    key = jax.random.key(0)
    return bnn.predict(MAP.posterior(state()), JOINT.likelihood, x, key=key)


KEYS = {
    "evaluate": lambda key: jaxprob.evaluate(MAP, state(), (X, Y), key=key),
    "ensemble": lambda key: bnn.DeepEnsemble(MAP, 2).init(NET, key=key),
    "posterior sample": lambda key: vi().sample(key=key),
    "mixture sample": lambda key: bnn.Mixture([vi(), vi()]).sample(key=key),
    "predictive sample": lambda key: predictive().sample(key=key),
    "blocks": lambda key: bnn.Blocks(MAP, {"weight": HMC}).posterior(
        state(), [(X, Y)], key=key
    ),
}


@pytest.mark.parametrize("place", KEYS)
def test_a_seed_in_the_place_of_a_key_is_named(place):
    # Outside of the test hook, which rejects it too, by a check of types.
    with unhooked(), pytest.raises(TypeError, match="key=3: give a key of JAX's"):
        KEYS[place](3)


SLIPS = {
    "one row": (
        lambda: predictive(X[0]),
        ValueError,
        r"x has shape \(2,\), .* of shape \(\). .* one input alone is x\[None\]",
    ),
    "features": (
        lambda: predictive(X[:, :1]),
        TypeError,
        r"x has shape \(20, 1\), and the model cannot be called with one row",
    ),
    "lists": (lambda: predictive(X.tolist()), TypeError, "x holds a float"),
    "log_prob": (
        lambda: predictive().log_prob(Y[:, 0]),
        ValueError,
        r"y has shape \(20,\), and the targets .* shape \(20, 1\)",
    ),
    "cdf": (lambda: predictive().cdf(Y[:, 0]), ValueError, r"have the shape \(20, 1\)"),
    "calibrate": (
        lambda: bnn.calibrate(predictive(), predictive(), Y[:, 0]),
        ValueError,
        r"have the shape \(20, 1\)",
    ),
    "other ensemble": (
        lambda: bnn.DeepEnsemble(MAP, 3).posterior(state()),
        ValueError,
        "TrainState whose arrays have no leading axis of 3 members",
    ),
    "batch size": (
        lambda: jaxprob.fit(
            MAP, NET, (X, Y), key=jax.random.key(0), num_steps=1, batch_size=0
        ),
        ValueError,
        "batch_size=0: a whole number",
    ),
    "other model": (
        lambda: vi().log_prob(eqx.nn.Linear(3, 1, key=jax.random.key(0))),
        ValueError,
        "model is a Linear whose classes, settings or number of leaves differ",
    ),
    "no batch": (
        lambda: bnn.Laplace(MAP).posterior(state(), []),
        ValueError,
        "batches is empty",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named_with_its_remedy(slip):
    function, error, words = SLIPS[slip]
    with unhooked(), pytest.raises(error, match=words):
        function()
