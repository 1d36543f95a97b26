"""Gradients of several batches for one update, in windows that an epoch's end closes.

`optax.MultiSteps` carries an open window into the next epoch. Lightning, and with it
`max_steps` and `estimated_stepping_batches`, counts an update at the last batch of each
epoch, which the optimiser cannot see: the loop that runs the epoch sets `closing`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree


class AccumulateState(NamedTuple):
    """The state of an optimiser made by `accumulate`.

    **Fields:**

    - `inner`: of the optimiser inside.
    - `accumulated`: the mean gradient of the window.
    - `accumulated_value`: the mean loss of the window, for optimisers that read it.
    - `num_accumulated`: batches in the window.
    - `num_updates`: made so far.
    - `closing`: whether the next batch closes the window, full or not.
    """

    inner: PyTree
    accumulated: PyTree
    accumulated_value: Float[Array, "..."]
    num_accumulated: Int[Array, "..."]
    num_updates: Int[Array, "..."]
    closing: Bool[Array, "..."]


def accumulate(
    optimizer: optax.GradientTransformationExtraArgs, every: int
) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser that makes one update of the mean gradient of a window.

    Between two updates the parameters stand still. A window that is closed early makes
    an update of the mean of the batches it has.

    **Arguments:**

    - `optimizer`: what makes the updates.
    - `every`: batches in a window.
    """

    def init(params):
        return AccumulateState(
            inner=optimizer.init(params),
            accumulated=jax.tree.map(jnp.zeros_like, params),
            accumulated_value=jnp.zeros(()),
            num_accumulated=jnp.zeros((), jnp.int32),
            num_updates=jnp.zeros((), jnp.int32),
            closing=jnp.asarray(False),
        )

    def update(updates, state, params=None, *, value=None, **extra):
        num = state.num_accumulated + 1
        value_mean = state.accumulated_value
        if value is not None:
            value = value.astype(value_mean.dtype)
            rest = (value - value_mean) / num.astype(value.dtype)
            value_mean = jnp.where(num == 1, value, value_mean + rest)
            extra["value"] = value_mean
        # A running mean: a sum of many gradients in half precision would overflow.
        mean = jax.tree.map(
            lambda m, g: m + (g - m) / num.astype(g.real.dtype),
            state.accumulated,
            updates,
        )

        def close():
            moved, inner = optimizer.update(mean, state.inner, params, **extra)
            zero = jax.tree.map(jnp.zeros_like, mean)
            return moved, AccumulateState(
                inner,
                zero,
                jnp.zeros_like(value_mean),
                jnp.zeros_like(num),
                state.num_updates + 1,
                jnp.zeros_like(state.closing),
            )

        def wait():
            still = jax.tree.map(jnp.zeros_like, mean)
            return still, state._replace(
                accumulated=mean, accumulated_value=value_mean, num_accumulated=num
            )

        return jax.lax.cond((num >= every) | state.closing, close, wait)

    return optax.GradientTransformationExtraArgs(init, update)


def windows(tree: PyTree) -> list[AccumulateState]:
    """Return the states of all such optimisers in a learner's state."""
    nodes = jax.tree.leaves(tree, is_leaf=_is_window)
    return [node for node in nodes if _is_window(node)]


def set_windows(tree: PyTree, **fields: Any) -> PyTree:
    """Return the tree with fields of all such states set to a number.

    Before the last batch of an epoch: `state = set_windows(state, closing=True)`.
    """

    def fill(leaf, value):
        return jax.tree.map(lambda x: jnp.full_like(x, value), leaf)

    def one(node):
        if not _is_window(node):
            return node
        new = {name: fill(getattr(node, name), v) for name, v in fields.items()}
        return node._replace(**new)

    return jax.tree.map(one, tree, is_leaf=_is_window)


def first_number(counter: Any) -> int:
    """Return a counter of all members, who count alike. This waits for the device."""
    return int(np.ravel(jax.device_get(counter))[0])


def _is_window(node):
    return isinstance(node, AccumulateState)
