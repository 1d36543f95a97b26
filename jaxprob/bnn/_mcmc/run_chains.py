"""Chains that run to their last draw, in memory or on disk."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._io.paths import local_path
from ..._random.keys import check_key, step_key
from ..._training.batch import num_rows
from ..._types import Model, PRNGKey
from .._joint.row import as_row
from .._posterior.draws import DrawsPosterior
from .chain_files import load_shards, load_state, save_shard, save_state
from .chains import AbstractChains, check_divergences
from .check_mixing import warn_if_apart
from .check_run import NEVER, check_start, check_stretch, mean_nll, warn_if_far
from .full_batch import AbstractFullBatch
from .initial import search_of
from .multi_start import at_modes
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
    init_key, run_key = jax.random.split(key)
    data = jax.tree.map(jnp.asarray, data)
    start = method
    if (search := search_of(method.initial)) is not None:
        start = dataclasses.replace(method, initial="model")
    # Outside of jit, where values can be checked against the edges of the prior.
    free = start.unconstrained(model)
    state = eqx.filter_jit(start.init)(free, key=init_key)
    shards = 0
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
        check_settings(folder, settings)
        state = _with_rings(state, checkpoint_every)
        state, shards = load_state(folder, state) or (state, 0)
    if int(state.step) == 0 and search is not None:
        position = at_modes(search, method, model, data, key=init_key)
        state = dataclasses.replace(state, position=position)
    if int(state.step) == 0:
        check_start(method, state, data)
    nll = mean_nll(method, data, batch_size or rows)
    before_run = nll(state)
    advance = _program(method, state, data, run_key, batch_size or rows)
    stretch = checkpoint_every * method.thin
    with tqdm(total=method.num_steps, disable=not progress, unit="step") as bar:
        bar.update(min(int(state.step), method.num_steps))
        while int(state.step) < method.num_steps:
            before = state
            step = int(before.step)
            # Stretches end at the same transitions whenever the run was interrupted.
            end = min((step // stretch + 1) * stretch, method.num_steps)
            state, first_bad = advance(before, end - step)
            check_stretch(method, before, state, np.asarray(first_bad), advance)
            if folder is not None:
                shards = _store(method, folder, before, state, shards)
            bar.update(end - step)
            bar.set_postfix(divergences=int(state.divergences.sum()), refresh=False)
    warn_if_far(method, before_run, nll(state))
    if folder is None:
        posterior = method.posterior(state, [data])
    else:
        check_divergences(method, state)
        num = method.num_draws
        posterior = _stored(method, model, folder, shards, data, num_draws=num)
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
    """
    if thin < 1:
        raise ValueError(f"thin={thin}: every thin-th draw is taken, so at least 1")
    folder = local_path("folder", folder)
    shards = len(list(folder.glob("draws-*.safetensors")))
    if not shards:
        raise ValueError(f"{folder} holds no draws yet")
    return _stored(method, model, folder, shards, data, thin)


def _stored(method, model, folder, shards, data, thin=1, num_draws=None):
    taken = slice(thin - 1, num_draws, thin)
    draws, stats = load_shards(folder, shards)
    draws, stats = jax.tree.map(lambda a: a[:, taken], (draws, stats))
    free = method.unconstrained(model)
    size = WeightVector.of(free, method.random).vector.size
    if draws.shape[2] != size:
        raise ValueError(
            f"{folder} holds draws of {draws.shape[2]} numbers, and the random leaves "
            f"of this model are {size}"
        )
    batches = None if data is None else [data]
    return method.as_posterior(model, draws, batches, sample_stats=stats)


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
