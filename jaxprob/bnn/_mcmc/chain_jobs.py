"""Chains that run apart, each as one job of an executor."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from ..._engine.jobs import Executor, run_jobs
from ..._types import PRNGKey
from .._inference.capabilities import replaced
from .chains import AbstractChains, ChainState
from .run import Draws, Run


def has_begun(method: AbstractChains, folder: Path | None, *, apart: bool) -> bool:
    """Return whether each chain of a run has its first state in the folder."""
    if folder is None:
        return False
    places = [folder]
    if apart:
        places = [_place(folder, chain) for chain in range(method.num_chains)]
    return all((place / "state.safetensors").exists() for place in places)


def run_apart(
    run: Run,
    state: ChainState,
    *,
    key: PRNGKey,
    folder: Path | None,
    executor: Executor | None,
    num_processes: int | None,
    progress: bool,
) -> Draws:
    """Return all draws of all chains, of which each is one job.

    **Arguments:**

    - `run`, `state`: of all chains.
    - `key`: chain c has the key `fold_in(key, c)`.
    - `folder`: in which each chain has a folder.
    - `executor`, `num_processes`, `progress`: as in `run_chains`.
    """
    method = run.method
    axis = method.members_axis(state)
    data = jax.tree.map(np.asarray, run.data)
    alone = replaced(method, num_chains=1, initial="model")
    jobs = {}
    for chain in range(method.num_chains):
        here = jax.tree.map(
            lambda leaf, a, c=chain: leaf[c : c + 1] if a else leaf, state, axis
        )
        place = None if folder is None else _place(folder, chain)
        one = dataclasses.replace(run, method=alone, data=data)
        chain_key = jax.random.fold_in(key, chain)
        jobs[f"chain {chain}"] = (one, _on_host(here), chain_key, place)
    found = {}
    with tqdm(total=len(jobs), disable=not progress, unit="chain") as bar:
        for name, draws in run_jobs(
            run_one, jobs, executor=executor, num_processes=num_processes
        ):
            found[name] = draws
            bar.update(1)
    parts = [found[name] for name in jobs]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)


def run_one(run: Run, state: ChainState, key: PRNGKey, folder: Path | None) -> Draws:
    """Return the draws of one chain as NumPy arrays. It is what a worker does."""
    arrays, rest = eqx.partition(state, eqx.is_array)
    state = eqx.combine(jax.tree.map(jnp.asarray, arrays), rest)
    run = dataclasses.replace(run, data=jax.tree.map(jnp.asarray, run.data))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    draws = run.to_end(state, key=key, folder=folder, progress=False)
    return jax.tree.map(np.asarray, draws)


def places(folder: Path) -> list[Path]:
    """Return the folders with the draws of a run: one, or one of each chain."""
    return sorted(folder.glob("chain-*")) or [folder]


def _place(folder, chain):
    return folder / f"chain-{chain:03d}"


def _on_host(tree):
    return jax.tree.map(lambda a: np.asarray(a) if eqx.is_array(a) else a, tree)
