"""Networks of an estimator stop where held-out rows are predicted best."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn
from jaxprob.estimators import BNNRegressor
from jaxprob.estimators._stopping import steps_of_least_loss
from jaxprob.estimators._train import silu

LIKELIHOOD = bnn.NormalLikelihood(0.3)


def ensemble(num_data):
    joint = bnn.LogJoint(LIKELIHOOD, bnn.FanInNormal(3.0), num_data=num_data)
    rate = optax.cosine_decay_schedule(1e-2, 1000, 0.01)
    return bnn.DeepEnsemble(bnn.MAP(joint, optax.adam(rate)), 2)


@pytest.mark.parametrize(("noise", "stops"), [(1.0, True), (0.0, False)])
def test_training_stops_early_where_there_is_noise_to_learn(noise, stops):

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 8)).astype(np.float32)
    y = (x[:, :1] + noise * rng.normal(size=(100, 1))).astype(np.float32)
    model = eqx.nn.MLP(8, 1, 32, 2, activation=silu, key=jax.random.key(0))
    found = steps_of_least_loss(
        ensemble,
        LIKELIHOOD,
        model,
        (x, y),
        key=jax.random.key(1),
        num_steps=1000,
        batch_size=100,
        progress=False,
    )
    assert found in (62, 125, 250, 500, 1000)
    assert (found <= 125) is stops


@pytest.mark.slow
def test_a_noisy_table_is_not_learnt_by_heart():
    """Two thirds of the variance is noise: the networks once had 800 nats a row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 8))
    y = x[:, 0] + 0.5 * x[:, 1] + 1.5 * rng.normal(size=900)
    model = BNNRegressor(effort="fast", random_state=0).fit(x[:300], y[:300])
    found = -model.predict_dist(x[300:]).log_prob(y[300:]).mean()
    best = float(0.5 * jnp.log(2 * jnp.pi * jnp.e * 1.5**2))
    assert found < best + 0.25
