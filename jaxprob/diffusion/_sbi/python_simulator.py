"""Simulations of any Python function, in processes, with results on disk."""

import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._engine.jobs import Executor, run_jobs
from ..._random.keys import as_seed, check_key
from ..._types import PRNGKey
from .._schedule.argument_checks import check_count
from .batch_folder import BatchFolder, SimulatedBatch
from .parameter_space import ParameterSpace, as_space
from .simulations import Simulations, finite_simulations


def simulate_in_processes(
    prior: PyTree | ParameterSpace,
    simulator: Callable[..., PyTree],
    *,
    key: PRNGKey,
    num_simulations: int,
    num_processes: int | None = None,
    executor: Executor | None = None,
    batch_size: int = 100,
    folder: str | os.PathLike | None = None,
    missing: bool = False,
    progress: bool = True,
) -> Simulations:
    """Run any Python function as a simulator, in parallel over processes.

    Simulation i has its own parameters and random numbers: results do not depend on the
    number of processes, and a run that was killed goes on where its folder ends.

    **Arguments:**

    - `prior`, `key`, `missing`, `progress`: as in `simulate`.
    - `simulator`: `simulator(theta, rng)`, defined at the top level of a file, where
        `theta` has the prior's structure with NumPy arrays and `rng` is a
        `numpy.random.Generator`. It returns an array or a tree of arrays, of the same
        shapes each time.
    - `num_simulations`: number of pairs.
    - `num_processes`: as many as there are cores by default. The work of one that dies
        is done again.
    - `executor`: runs the jobs elsewhere: anything with `submit(function, *args)` that
        returns a future, such as a `concurrent.futures` executor, dask's
        `client.get_executor()` or a `submitit.AutoExecutor`.
    - `batch_size`: simulations of one job, and of one file of the folder.
    - `folder`: where results are kept. A folder belongs to one prior, key and
        `batch_size`; a run with more simulations adds to it.

    **Returns:** `Simulations`. Those that raised or are not finite are counted and left
    out, with a warning.

    **Raises:** `RuntimeError` if worker processes die again and again; `ValueError` if
    no simulation worked, if an observation has another
    shape than the first, if the simulator gives another result for the same parameters
    and random numbers, or if a folder holds the simulations of another prior or key.
    """
    space = as_space(prior)
    check_key(key)
    check_count("num_simulations", num_simulations, "at least one simulation")
    check_count("batch_size", batch_size, "at least one simulation in a batch")
    begins = range(0, num_simulations, batch_size)
    done = BatchFolder(folder, as_seed(key), batch_size)
    jobs = {
        begin: (simulator, _draws(space, key, begin, batch_size), as_seed(key), begin)
        for begin in begins
    }
    open_jobs = {begin: job for begin, job in jobs.items() if not done.has(begin)}
    with tqdm(total=len(begins), unit="batch", disable=not progress) as bar:
        bar.update(len(begins) - len(open_jobs))
        for begin, batch in run_jobs(
            run_batch, open_jobs, executor=executor, num_processes=num_processes
        ):
            done.write(begin, batch)
            bar.update(1)
    batches = [done.read(begin, jobs[begin][1]) for begin in begins]
    return _joined(batches, num_simulations, missing=missing)


def run_batch(
    simulator: Callable[..., PyTree], theta: PyTree, seed: int, begin: int
) -> SimulatedBatch:
    """Run some rows, and keep the error of each row that raises.

    The first row runs twice, to see whether its random numbers are all in `rng`.

    **Raises:** `ValueError` for a simulator that is not a function of its arguments.
    """
    rows = [
        jax.tree.map(lambda leaf, i=i: leaf[i], theta)
        for i in range(len(jax.tree.leaves(theta)[0]))
    ]

    def one(i):
        # A copy: a simulator that changes its argument does not change what is kept.
        row = jax.tree.map(np.array, rows[i])
        x = simulator(row, np.random.default_rng([seed, begin + i]))
        return jax.tree.map(np.asarray, x)

    observations: list[Any] = []
    errors = []
    for i in range(len(rows)):
        try:
            observations.append(one(i))
            errors.append("")
        except Exception as error:
            observations.append(None)
            errors.append(f"{type(error).__name__}: {error}")
    if observations[0] is not None and not _equal(observations[0], one(0)):
        raise ValueError(
            "the simulator gave two results for one theta and one rng: draw all random "
            "numbers from the rng that it is given, not from numpy.random or random"
        )
    return SimulatedBatch(theta, observations, errors)


def _draws(space, key, begin, size):
    draws = space.sample(key=jax.random.fold_in(key, begin), num_samples=size)
    return jax.tree.map(np.asarray, draws)


def _joined(batches, num, *, missing):
    theta = jax.tree.map(
        lambda *leaves: np.concatenate(leaves)[:num], *(b.theta for b in batches)
    )
    rows = [x for b in batches for x in b.observations][:num]
    errors = [error for b in batches for error in b.errors][:num]
    first = next((x for x in rows if x is not None), None)
    if first is None:
        raise ValueError(f"all {num} simulations raised, the first with {errors[0]}")
    for i, x in enumerate(rows):
        if x is not None:
            _check_like(first, x, i)
    failed = np.array([x is None for x in rows])
    filled = [first if x is None else x for x in rows]
    x = jax.tree.map(lambda *leaves: np.stack(leaves), *filled)
    reasons = [error for error in errors if error]
    return finite_simulations(theta, x, missing=missing, failed=failed, reasons=reasons)


def _check_like(first, x, row):
    def kind(tree):
        leaves, structure = jax.tree.flatten(tree)
        return structure, [(leaf.shape, leaf.dtype) for leaf in leaves]

    if kind(x) != kind(first):
        raise ValueError(
            f"simulation {row} has an observation of {kind(x)[1]}, and the first one "
            f"{kind(first)[1]}: return the same shapes and dtypes each time. Sets or "
            "series of several lengths are padded with NaN, with missing=True"
        )


def _equal(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in leaves)
