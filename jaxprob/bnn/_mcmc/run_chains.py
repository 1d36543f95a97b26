"""Chains that run to their last draw, in memory or on disk."""

import dataclasses
import warnings
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._engine.jobs import Executor
from ..._io.paths import local_path
from ..._random.keys import check_key
from ..._training.batch import num_rows
from ..._types import Model, PRNGKey
from .._joint.row import as_row
from .._posterior.draws import DrawsPosterior
from .chain_files import load_shards
from .chain_jobs import has_begun, places, run_apart
from .chains import AbstractChains
from .check_mixing import warn_if_apart
from .full_batch import AbstractFullBatch
from .initial import search_of
from .multi_start import at_modes
from .run import Run
from .run_settings import check_settings, run_settings
from .weight_vector import WeightVector


def run_chains(
    method: AbstractChains,
    model: Model,
    data: PyTree,
    *,
    key: PRNGKey,
    folder: str | Path | None = None,
    checkpoint_every: int = 50,
    batch_size: int | None = None,
    progress: bool = True,
    check_mixing: bool = True,
    executor: Executor | None = None,
    num_processes: int | None = None,
) -> DrawsPosterior:
    """Return all draws of a sampler, on data that lie in memory.

    ```python
    posterior = run_chains(NUTS(log_joint), model, (x, y), key=key, folder="chains")
    print(diagnose(posterior, x))
    ```

    The chains run in stretches of `checkpoint_every` draws, each one dispatch. With a
    folder, the draws of a stretch are written to a new file and leave memory, then the
    state is written, in warm-up too. When a run was killed and the same call is made
    again, it continues from there, to the same bits. A larger `num_draws` continues a
    finished run; with a smaller one the first draws are returned.

    **Arguments:**

    - `method`: NUTS, HMC, MCLMC, SGLD or SGHMC.
    - `model`: as in `method.init`.
    - `data`: `(x, y)`.
    - `key`: everything random in the run. Transition k has the key `fold_in(key, k)`.
    - `folder`: the run is stored there.
    - `checkpoint_every`: draws, or as many warm-up transitions, from one check and
        checkpoint to the next.
    - `batch_size`: rows of a minibatch, drawn with replacement; all rows by default,
        and always for NUTS, HMC and MCLMC.
    - `progress`: whether to show a progress bar on standard error.
    - `check_mixing`: whether to warn of chains with a large R-hat. `False` for chains
        each of which is meant to explore its own mode, as those from an ensemble's
        members are.
    - `executor`, `num_processes`: as in `jaxprob.run_jobs`, to run each chain as a job
        apart. Its random numbers are others than side by side, and do not depend on the
        number of workers. On one machine chains side by side in one program, the
        default, are faster unless the model is large. All workers see the folder.

    **Returns:** the draws of all chains.

    **Raises:** `ChainError` when a position is not finite, with the first transition,
    or when a chain diverged in every transition since the warm-up, or in all of a
    stretch of at least ten;
    `ValueError` for a start without a finite density or gradient (with the leaf), and
    for a folder that holds another run. Warns of divergences, and of chains of SGLD or
    SGHMC that end where the data are far less probable than where they started, and,
    with 50 draws of each chain or more, of an R-hat of outputs or log density above
    1.1.
    """
    if not isinstance(method, AbstractChains):
        raise TypeError(
            f"method is a {type(method).__name__}: run_chains(method, model, data) "
            "runs NUTS, HMC, MCLMC, SGLD and SGHMC; jaxprob.fit trains other methods"
        )
    check_key(key)
    as_row(data)
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every={checkpoint_every}: at least 1 draw")
    rows = num_rows(data)
    if batch_size is not None and isinstance(method, AbstractFullBatch):
        raise ValueError(
            f"batch_size={batch_size}: {type(method).__name__} needs all rows in each "
            "transition. For minibatches use SGLD or SGHMC."
        )
    method.check_training(model, data)
    apart = executor is not None or num_processes is not None
    init_key, run_key = jax.random.split(key)
    data = jax.tree.map(jnp.asarray, data)
    start, search = method, search_of(method.initial)
    if search is not None:
        start = dataclasses.replace(method, initial="model")
    # Outside of jit, where values can be checked against the edges of the prior.
    free = start.unconstrained(model)
    state = eqx.filter_jit(start.init)(free, key=init_key)
    if folder is not None:
        folder = local_path("folder", folder)
        settings = run_settings(
            method,
            model,
            data,
            key=key,
            batch_size=batch_size,
            checkpoint_every=checkpoint_every,
        )
        check_settings(folder, settings | ({"chains": "apart"} if apart else {}))
    if search is not None and not has_begun(method, folder, apart=apart):
        position = at_modes(search, method, model, data, key=init_key)
        state = dataclasses.replace(state, position=position)
    run = Run(method, data, checkpoint_every, batch_size or rows)
    if apart:
        draws, stats = run_apart(
            run,
            state,
            key=run_key,
            folder=folder,
            executor=executor,
            num_processes=num_processes,
            progress=progress,
        )
    else:
        draws, stats = run.to_end(state, key=run_key, folder=folder, progress=progress)
    posterior = method.as_posterior(model, draws, [data], sample_stats=stats)
    if check_mixing:
        warn_if_apart(posterior, method.log_joint, as_row(data).x)
    return posterior


def load_draws(
    method: AbstractChains,
    model: Model,
    folder: str | Path,
    *,
    data: PyTree | None = None,
    thin: int = 1,
) -> DrawsPosterior:
    """Return the draws that a folder of `run_chains` holds, while a run goes on too.

    **Arguments:**

    - `method`, `model`: those of the run.
    - `folder`: of the run.
    - `data`: the training data, for models that keep running statistics.
    - `thin`: only every `thin`-th draw is returned.

    **Raises:** `ValueError` when there is none yet, or for a model of another size.
    Warns of chains without a draw, where they run apart.
    """
    if thin < 1:
        raise ValueError(f"thin={thin}: every thin-th draw is taken, so at least 1")
    folder = local_path("folder", folder)
    stored = []
    for place in places(folder):
        if shards := len(list(place.glob("draws-*.safetensors"))):
            stored.append(load_shards(place, shards))
    if not stored:
        raise ValueError(f"{folder} holds no draws yet")
    found = sum(len(draws) for draws, _ in stored)
    if found < method.num_chains:
        warnings.warn(
            f"{folder} holds draws of {found} of the {method.num_chains} chains: the "
            "others have none yet",
            stacklevel=2,
        )
    # Chains that run apart are not all equally far.
    taken = slice(thin - 1, min(draws.shape[1] for draws, _ in stored), thin)
    draws, stats = jax.tree.map(
        lambda *chains: np.concatenate([a[:, taken] for a in chains]), *stored
    )
    free = method.unconstrained(model)
    size = WeightVector.of(free, method.random).vector.size
    if draws.shape[2] != size:
        raise ValueError(
            f"{folder} holds draws of {draws.shape[2]} numbers, and the random leaves "
            f"of this model are {size}"
        )
    batches = None if data is None else [data]
    return method.as_posterior(model, draws, batches, sample_stats=stats)
