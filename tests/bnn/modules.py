"""Small modules of every kind, each with rows it takes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from jaxprob import bnn

ROWS = 6


class ConvNet(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __init__(self, key):
        conv_key, head_key = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(1, 2, 2, key=conv_key)
        self.head = eqx.nn.Linear(8, "scalar", key=head_key)

    def __call__(self, x):
        return self.head(jnp.tanh(self.conv(x)).ravel())


class Attention(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    head: eqx.nn.Linear

    def __init__(self, key):
        attention_key, head_key = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=attention_key)
        self.head = eqx.nn.Linear(4, "scalar", key=head_key)

    def __call__(self, x):
        return self.head(self.attention(x, x, x).mean(0))


class Recurrent(eqx.Module):
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __init__(self, key):
        cell_key, head_key = jax.random.split(key)
        self.cell = eqx.nn.GRUCell(2, 3, key=cell_key)
        self.head = eqx.nn.Linear(3, "scalar", key=head_key)

    def __call__(self, x):
        hidden, _ = jax.lax.scan(
            lambda h, token: (self.cell(token, h), None), jnp.zeros(3, x.dtype), x
        )
        return self.head(hidden)


class BatchNormed(eqx.Module):
    first: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key, mode: Any = "batch"):
        first_key, head_key = jax.random.split(key)
        self.first = eqx.nn.Linear(3, 4, key=first_key)
        self.norm = eqx.nn.BatchNorm(4, "batch", mode=mode)
        self.head = eqx.nn.Linear(4, "scalar", key=head_key)

    def __call__(self, x, state):
        x, state = self.norm(self.first(x), state)
        return self.head(jnp.tanh(x)), state


class Own(eqx.Module):
    """Arrays in a dict, a layer norm, dropout and a setting: a user's class."""

    weights: dict
    norm: eqx.nn.LayerNorm
    dropout: eqx.nn.Dropout
    log_scale: jax.Array
    name: str

    def __init__(self, key):
        in_key, out_key = jax.random.split(key)
        self.weights = {
            "in": jax.random.normal(in_key, (4, 3)),
            "out": jax.random.normal(out_key, (4,)),
        }
        self.norm = eqx.nn.LayerNorm(4)
        self.dropout = eqx.nn.Dropout(0.2)
        self.log_scale = jnp.zeros(())
        self.name = "own"

    def __call__(self, x, *, key=None):
        hidden = self.dropout(self.norm(self.weights["in"] @ x), key=key)
        return jnp.exp(self.log_scale) * (self.weights["out"] @ jnp.tanh(hidden))


def batch_normed(key, mode="batch"):
    return bnn.Stateful(*eqx.nn.make_with_state(BatchNormed)(key, mode))


MODULES = {
    "mlp": (lambda key: eqx.nn.MLP(3, "scalar", 4, 1, key=key), (3,)),
    "conv": (ConvNet, (1, 3, 3)),
    "attention": (Attention, (2, 4)),
    "recurrent": (Recurrent, (3, 2)),
    "batch norm": (batch_normed, (3,)),
    "own class": (Own, (3,)),
}


def make(name):
    """The module and rows `(x, y)` for it."""
    build, shape = MODULES[name]
    x = jax.random.normal(jax.random.key(1), (ROWS, *shape))
    return build(jax.random.key(0)), (x, jnp.sin(x.reshape(ROWS, -1)[:, 0]))
