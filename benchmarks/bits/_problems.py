"""Small data sets and networks that the rows share."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxprob import bnn


def regression():
    """Return eight rows of two features, and real targets."""
    x = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
    return x, np.sin(2.0 * x[:, 0]) + 0.5 * x[:, 1]


def images():
    """Return six images of one channel, and real targets."""
    x = np.random.default_rng(1).normal(size=(6, 1, 4, 4)).astype(np.float32)
    return x, x.mean((1, 2, 3))


def mlp(seed=0, out: int | Literal["scalar"] = "scalar"):
    """Return a network with one hidden layer."""
    return eqx.nn.MLP(2, out, 4, 1, jnp.tanh, key=jax.random.key(seed))


def dropped():
    """Return a network with a dropout layer."""
    first, second = jax.random.split(jax.random.key(5))
    return eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 8, key=first),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Dropout(0.2),
            eqx.nn.Linear(8, "scalar", key=second),
        ]
    )


class ConvNet(eqx.Module):
    """A convolution and a linear layer."""

    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self):
        conv_key, head_key = jax.random.split(jax.random.key(6))
        self.conv = eqx.nn.Conv2d(1, 2, 2, key=conv_key)
        self.head = eqx.nn.Linear(18, "scalar", key=head_key)

    def __call__(self, x):
        return self.head(jnp.tanh(self.conv(x)).ravel())


class BatchNormed(eqx.Module):
    """A network with batch normalisation."""

    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        first_key, head_key = jax.random.split(key)
        self.first = eqx.nn.Linear(2, 4, key=first_key)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode="batch")
        self.head = eqx.nn.Linear(4, "scalar", key=head_key)

    def __call__(self, x, state):
        x, state = self.norm(self.first(x), state)
        return self.head(jnp.tanh(x)), state


def batch_normed():
    """Return a network that keeps running statistics, as one model."""
    return bnn.Stateful(*eqx.nn.make_with_state(BatchNormed)(jax.random.key(7)))


def rippled(tree):
    """Add to each array a wave that depends on its shape alone.

    Parameters that start at zero would hide what lies before them.
    """

    def one(leaf):
        wave = np.cos(np.arange(leaf.size, dtype=np.float32)).reshape(leaf.shape)
        return leaf + jnp.asarray(0.2 * wave, leaf.dtype)

    params, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(one, params), rest)
