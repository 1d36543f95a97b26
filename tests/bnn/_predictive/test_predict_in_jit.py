"""`predict` inside a program of the caller's: the same numbers, compiled in seconds."""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxprob import bnn


def predictive(x, num_samples):
    net = eqx.nn.MLP(3, 1, 8, 1, key=jax.random.key(0))
    joint = bnn.LogJoint(bnn.NormalLikelihood(0.1), bnn.FanInNormal(), 100)
    method = bnn.MeanFieldVI(joint, optax.adam(1e-3))
    posterior = method.posterior(method.init(net, key=jax.random.key(1)))
    key = jax.random.key(2)
    return bnn.predict(
        posterior, joint.likelihood, x, key=key, num_samples=num_samples, batch_size=16
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_samples", [13, 1000])
def test_numbers_inside_a_program_are_those_outside(num_samples):
    x = np.random.default_rng(0).normal(size=(37, 3)).astype(np.float32)

    def figures(x):
        p = predictive(x, num_samples)
        return p.mean, p.std, p.log_prob(jnp.zeros((37, 1))), p.outputs

    compiled = jax.jit(figures).lower(x)
    begin = time.process_time()
    compiled = compiled.compile()
    # 125 blocks of 8 models in each of three chunks: one loop, and not 375 calls.
    assert time.process_time() - begin < 20
    for inside, outside in zip(compiled(x), figures(x), strict=True):
        assert np.allclose(inside, outside, atol=1e-5)
