"""Chains side by side, from a state to their last draw."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._random.keys import step_key
from ..._training.batch import num_rows
from ..._types import PRNGKey
from .chain_files import load_shards, load_state, save_shard, save_state
from .chains import AbstractChains, ChainState, check_divergences
from .check_run import NEVER, check_start, check_stretch, mean_nll, warn_if_far
from .ring_buffer import in_order

Draws = tuple[np.ndarray | jax.Array, dict[str, np.ndarray | jax.Array]]
"""Vectors, (chains, draws, dim), and the statistics of each draw, (chains, draws)."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of a run, apart from its start.

    **Arguments:**

    - `method`, `data`, `checkpoint_every`: as in `run_chains`.
    - `batch_size`: rows of a minibatch, at most those of the data.
    """

    method: AbstractChains
    data: PyTree
    checkpoint_every: int
    batch_size: int

    def to_end(
        self,
        state: ChainState,
        *,
        key: PRNGKey,
        folder: Path | None,
        progress: bool,
    ) -> Draws:
        """Return all draws of all chains.

        **Arguments:**

        - `state`: before the first transition.
        - `key`, `folder`, `progress`: as in `run_chains`.

        **Raises:** as `run_chains`.
        """
        method, data, shards = self.method, self.data, 0
        if folder is not None:
            state = _with_rings(state, self.checkpoint_every)
            state, shards = load_state(folder, state) or (state, 0)
        if int(state.step) == 0:
            check_start(method, state, data)
        nll = mean_nll(method, data, self.batch_size)
        before_run = nll(state)
        advance = _program(method, state, data, key, self.batch_size)
        stretch = self.checkpoint_every * method.thin
        with tqdm(total=method.num_steps, disable=not progress, unit="step") as bar:
            bar.update(min(int(state.step), method.num_steps))
            while int(state.step) < method.num_steps:
                before = state
                step = int(before.step)
                # Stretches end at the same transitions, interrupted or not.
                end = min((step // stretch + 1) * stretch, method.num_steps)
                state, first_bad = advance(before, end - step)
                check_stretch(method, before, state, np.asarray(first_bad), advance)
                if folder is not None:
                    shards = _store(method, folder, before, state, shards)
                bar.update(end - step)
                bar.set_postfix(divergences=int(state.divergences.sum()), refresh=False)
        warn_if_far(method, before_run, nll(state))
        check_divergences(method, state)
        if folder is None:
            num_kept = int(method.schedule.num_kept(int(state.step)))
            rings = state.draws, state.sample_stats
            return jax.tree.map(lambda ring: in_order(ring, num_kept), rings)
        stored = load_shards(folder, shards)
        return jax.tree.map(lambda a: a[:, : method.num_draws], stored)


def _with_rings(state, length):
    """The state with ring buffers of a stretch, whose draws go to the disk."""

    def ring(array):
        array = array[:, :length]
        short = length - array.shape[1]
        return jnp.pad(array, ((0, 0), (0, short), *[(0, 0)] * (array.ndim - 2)))

    rings = jax.tree.map(ring, (state.draws, state.sample_stats))
    return dataclasses.replace(state, draws=rings[0], sample_stats=rings[1])


def _store(method, folder, before, state, shards):
    """Write the draws of a stretch, then the state that counts them."""
    first, last = (int(method.schedule.num_kept(int(s.step))) for s in (before, state))
    if last > first:
        places = np.arange(first, last) % state.draws.shape[1]
        rings = state.draws, state.sample_stats
        draws, stats = jax.tree.map(lambda a: np.asarray(a)[:, places], rings)
        save_shard(folder, shards, draws, stats)
        shards += 1
    save_state(folder, state, shards)
    return shards


def _program(method, state, data, key, batch_size):
    """`run(state, num_steps) -> (state, first_bad)`, compiled once."""
    static = eqx.partition(state, eqx.is_array)[1]
    rows = num_rows(data)

    def pick(key):
        if batch_size >= rows:
            return data
        index = jax.random.randint(key, (batch_size,), 0, rows)
        return jax.tree.map(lambda a: a[index], data)

    def body(_, carry):
        arrays, first_bad = carry
        state = eqx.combine(arrays, static)
        rows_key, move_key = jax.random.split(step_key(key, state.step))
        after, _ = method.update(state, pick(rows_key), key=move_key)
        fine = jnp.all(jnp.isfinite(after.position), axis=1)
        here = jnp.where(fine, NEVER, state.step)
        arrays = eqx.filter(after, eqx.is_array)
        return arrays, jnp.minimum(first_bad, here)

    @jax.jit
    def advance(arrays, num_steps):
        never = jnp.full(method.num_chains, NEVER, jnp.int32)
        # A dynamic number of steps: one compilation for every stretch.
        return jax.lax.fori_loop(0, num_steps, body, (arrays, never))

    def run(state, num_steps):
        arrays, first_bad = advance(
            eqx.filter(state, eqx.is_array), np.int32(num_steps)
        )
        return eqx.combine(arrays, static), first_bad

    return run
