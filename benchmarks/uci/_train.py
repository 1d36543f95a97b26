"""Any inference method on all splits at once."""

import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from jaxprob.bnn import AbstractInference

from ._task import Task

DISPATCHES = 20


def split_keys(key: Any, task: Task) -> list[Any]:
    """A key for each split that does not depend on which others run beside it."""
    return [jax.random.fold_in(key, split) for split in task.splits]


def train(
    methods: Sequence[AbstractInference],
    models: list[Any],
    task: Task,
    *,
    key: Any,
    num_steps: int,
    batch_size: int | None = None,
) -> list[Any]:
    """Train one model per split in one program and return their states.

    `methods` may differ between splits in their arrays alone.
    """
    keys = split_keys(key, task)
    states = [
        eqx.filter_jit(method.init)(model, key=jax.random.fold_in(k, 0))
        for method, model, k in zip(methods, models, keys, strict=True)
    ]
    state, static = eqx.partition(_stack(states), eqx.is_array)
    # A state goes in as it comes out, without weak types: one compilation, not two.
    state = jax.tree.map(lambda a: jax.lax.convert_element_type(a, a.dtype), state)
    method, rest = eqx.partition(_stack(methods), eqx.is_array)
    rows = task.num_data

    def update(method, state, x, y, key, index):
        row_key, step_key = jax.random.split(jax.random.fold_in(key, index))
        if batch_size is not None and batch_size < rows:
            chosen = jax.random.randint(row_key, (batch_size,), 0, rows)
            x, y = x[chosen], y[chosen]
        method, state = eqx.combine(method, rest), eqx.combine(state, static)
        state, _ = method.update(state, (x, y), key=step_key)
        return eqx.filter(state, eqx.is_array)

    @jax.jit
    def steps(state, first, last):
        def step(index, state):
            advance = jax.vmap(update, in_axes=(0, 0, 0, 0, 0, None))
            return advance(method, state, task.x, task.y, jnp.stack(keys), index)

        return jax.lax.fori_loop(first, last, step, state)

    # The bounds are arguments: parts of all lengths share one program.
    bounds = np.linspace(1, num_steps + 1, min(DISPATCHES, num_steps) + 1, dtype=int)
    for first, last in tqdm(
        list(itertools.pairwise(bounds.tolist())),
        desc=f"{task.name}, {type(methods[0]).__name__}",
        leave=False,
    ):
        state = jax.block_until_ready(steps(state, first, last))
    return [
        eqx.combine(jax.tree.map(lambda a, s=s: a[s], state), states[s])
        for s in range(len(states))
    ]


def _stack(trees):
    """Arrays along a new leading axis; what is no array is that of the first."""
    arrays, rest = zip(*(eqx.partition(t, eqx.is_array) for t in trees), strict=True)
    return eqx.combine(jax.tree.map(lambda *a: jnp.stack(a), *arrays), rest[0])
