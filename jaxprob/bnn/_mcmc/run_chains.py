"""Runs chains to the end: in one program, watched, and on disk if that is wanted."""

import dataclasses
import re
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._io.fingerprint import fingerprint
from ..._io.paths import local_path
from ..._jaxpr.host_errors import checks_give_nan
from ..._random.keys import check_key, step_key
from ..._training.batch import num_rows
from ..._training.divergence import has_diverged
from ..._types import Model, PRNGKey
from .._joint.log_joint import xy
from .._posterior.draws import DrawsPosterior
from .chain_files import (
    check_settings,
    load_shards,
    load_state,
    save_shard,
    save_state,
)
from .chains import AbstractChains, ChainState, leaf_at
from .hamiltonian import AbstractHamiltonian, advice


class ChainError(FloatingPointError):
    """A chain left the numbers or never moved again.

    **Fields:**

    - `state`: the last good state; `method.posterior(error.state)` gives the draws up
        to it. Of a run on disk the folder holds the same, and its earlier draws.
    """

    def __init__(self, message: str, state: ChainState):
        super().__init__(message)
        self.state = state


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
) -> DrawsPosterior:
    """All draws of a sampler, on data that lie in memory.

    ```python
    posterior = run_chains(NUTS(log_joint), model, (x, y), key=key, folder="chains")
    print(diagnose(posterior, x))
    ```

    The chains run in stretches of `checkpoint_every` draws, each one dispatch. With a
    folder, the draws of a stretch are written to a file of their own and leave memory,
    then the state is written, in warm-up too. A run that was killed goes on from there
    when the same call is made again, with the same bits. A larger `num_draws` prolongs
    a finished run; of a smaller one the first draws are given.

    **Arguments:**

    - `method`: NUTS, HMC, SGLD or SGHMC.
    - `model`: as in `method.init`.
    - `data`: `(x, y)`.
    - `key`: everything random in the run. Transition k has the key `fold_in(key, k)`.
    - `folder`: where the run is kept.
    - `checkpoint_every`: draws, or as many warm-up transitions, from one look and
        checkpoint to the next.
    - `batch_size`: rows of a minibatch, drawn with replacement; all rows by default,
        and always for NUTS and HMC.
    - `progress`: whether to show a progress bar on standard error.

    **Returns:** the draws of all chains.

    **Raises:** `ChainError` when a position is not finite, with the first transition,
    or when a chain diverged in every transition of a stretch after warm-up;
    `ValueError` for a start without a finite density or gradient (with the leaf), and
    for a folder that holds another run. Warns of divergences, and of chains of SGLD or
    SGHMC that end where the data are far less probable than where they started.
    """
    if not isinstance(method, AbstractChains):
        raise TypeError(
            f"method is a {type(method).__name__}: run_chains(method, model, data) "
            "runs NUTS, HMC, SGLD and SGHMC; others are trained by jaxprob.fit"
        )
    check_key(key)
    xy(data)
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every={checkpoint_every}: at least 1 draw")
    rows = num_rows(data)
    if batch_size is not None and isinstance(method, AbstractHamiltonian):
        raise ValueError(
            f"batch_size={batch_size}: {type(method).__name__} needs all rows in each "
            "transition. For minibatches use SGLD or SGHMC."
        )
    method.check_training(model, data)
    init_key, run_key = jax.random.split(key)
    data = jax.tree.map(jnp.asarray, data)
    state = eqx.filter_jit(method.init)(model, key=init_key)
    shards = 0
    if folder is not None:
        folder = local_path("folder", folder)
        settings = _settings(method, model, data, key, batch_size, checkpoint_every)
        check_settings(folder, settings)
        ring = state.draws[:, :checkpoint_every]
        if ring.shape[1] < checkpoint_every:
            short = checkpoint_every - ring.shape[1]
            ring = jnp.pad(ring, ((0, 0), (0, short), (0, 0)))
        state = dataclasses.replace(state, draws=ring)
        state, shards = load_state(folder, state) or (state, 0)
    if int(state.step) == 0:
        _check_start(method, state, data)
    nll = _loss(method, data, batch_size or rows)
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
            _judge(method, before, state, np.asarray(first_bad), advance)
            if folder is not None:
                shards = _keep(method, folder, before, state, shards)
            bar.update(end - step)
            bar.set_postfix(divergences=int(state.divergences.sum()), refresh=False)
    _warn_if_far(before_run, nll(state))
    if folder is None:
        return method.posterior(state, [data])
    method._judge(state)
    return _stored(method, model, folder, shards, data, num=method.num_draws)


def load_draws(
    method: AbstractChains,
    model: Model,
    folder: str | Path,
    *,
    data: PyTree | None = None,
    thin: int = 1,
) -> DrawsPosterior:
    """The draws that a folder of `run_chains` holds so far, of a run that goes on too.

    **Arguments:**

    - `method`, `model`: those of the run.
    - `folder`: of the run.
    - `data`: the training data, for models that keep running statistics.
    - `thin`: takes each so-many-th draw only.

    **Raises:** `ValueError` when there is none yet, or for a model of another size.
    """
    if thin < 1:
        raise ValueError(f"thin={thin}: each so-many-th draw, at least 1")
    folder = local_path("folder", folder)
    shards = len(list(folder.glob("draws-*.safetensors")))
    if not shards:
        raise ValueError(f"{folder} holds no draws yet")
    return _stored(method, model, folder, shards, data, thin)


def _stored(method, model, folder, shards, data, thin=1, num=None):
    draws = np.concatenate(load_shards(folder, shards), axis=1)
    draws = draws[:, thin - 1 : num : thin]
    size = sum(leaf.size for leaf in jax.tree.leaves(method._split(model)[0]))
    if draws.shape[2] != size:
        raise ValueError(
            f"{folder} holds draws of {draws.shape[2]} numbers, and the random leaves "
            f"of this model are {size}"
        )
    return method.as_posterior(model, draws, None if data is None else [data])


def _keep(method, folder, before, state, shards):
    """Writes the draws of a stretch, then the state that counts them."""
    first, last = (int(method.num_kept(int(s.step))) for s in (before, state))
    if last > first:
        places = np.arange(first, last) % state.draws.shape[1]
        save_shard(folder, shards, np.asarray(state.draws)[:, places])
        shards += 1
    save_state(folder, state, shards)
    return shards


def _program(method, state, data, key, batch_size):
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
        here = jnp.where(fine, jnp.iinfo(jnp.int32).max, state.step)
        arrays = eqx.filter(after, eqx.is_array)
        return arrays, jnp.minimum(first_bad, here)

    @jax.jit
    def advance(arrays, num):
        never = jnp.full(method.num_chains, jnp.iinfo(jnp.int32).max, jnp.int32)
        # A dynamic number of steps: one compilation for every stretch.
        return jax.lax.fori_loop(0, num, body, (arrays, never))

    def run(state, num):
        arrays, first_bad = advance(eqx.filter(state, eqx.is_array), np.int32(num))
        return eqx.combine(arrays, static), first_bad

    return run


def _loss(method, data, batch_size):
    """The mean negative log-likelihood of the chains, on the first rows of the data."""
    if isinstance(method, AbstractHamiltonian):  # refuses what is improbable
        return lambda state: 0.0
    batch = jax.tree.map(lambda a: a[:batch_size], data)

    @eqx.filter_jit
    def nll(state):
        return method.evaluate(state, batch, key=jax.random.key(0))["nll"]

    return lambda state: float(nll(state))


def _warn_if_far(start, end):
    if has_diverged([start, end]):
        warnings.warn(
            f"the negative log-likelihood per row was {start:.4g} where the chains "
            f"started and is {end:.4g} where they end: the chains have diverged, "
            "though every number is finite. Lower the learning rate, or standardise "
            "the data",
            stacklevel=3,
        )


def _judge(method, before, state, first_bad, advance):
    if (first_bad < np.iinfo(np.int32).max).any():
        chain, step = int(first_bad.argmin()), int(first_bad.min())
        # By the end of the stretch every leaf has caught it: up to there once more.
        broken, _ = advance(before, step + 1 - int(before.step))
        position = np.asarray(broken.position)[chain]
        place = int(np.argmin(np.isfinite(position)))
        leaf = leaf_at(method._split(state.model)[0], place)
        raise ChainError(
            f"chain {chain} is not finite from transition {step} on, "
            f"first of all at {leaf}. Lower the learning rate or the step size. The "
            f"state after {int(before.step)} transitions is kept.",
            before,
        )
    since = max(int(before.step), method.num_warmup)
    count = int(state.step) - since
    failed = np.asarray(state.divergences - before.divergences)
    if count > 1 and (failed >= count).any():
        raise ChainError(
            f"chain {int(failed.argmax())} diverged in each of the {count} transitions "
            f"from {since} on: it does not move. {advice(method)} The state after "
            f"{int(before.step)} transitions is kept.",
            before,
        )


def _check_start(method, state, data):
    """Refuses a start without a density, and names the leaf without a gradient."""

    def value(vector):
        model = eqx.nn.inference_mode(state.model)
        drawn = method._model(model, vector, None)
        params = method._split(drawn)[0]
        return method.log_joint(drawn, data, key=jax.random.key(0), params=params)

    slopes = checks_give_nan(jax.value_and_grad(value))
    values, grads = jax.jit(jax.vmap(slopes))(state.position)
    for chain, (density, grad) in enumerate(
        zip(np.asarray(values), np.asarray(grads), strict=True)
    ):
        if np.isfinite(density) and np.isfinite(grad).all():
            continue
        what = f"the log density {density}"
        if np.isfinite(density):
            params = method._split(state.model)[0]
            leaf = leaf_at(params, int(np.argmin(np.isfinite(grad))))
            what = f"a gradient that is not finite at {leaf}"
        raise ValueError(
            f"chain {chain} starts with {what}. Start elsewhere (initial='model', or "
            "the posterior of an ensemble), or look at the model and the scale of "
            "the data there."
        )


def _settings(method, model, data, key, batch_size, checkpoint_every) -> dict[str, Any]:
    """What must not change between the parts of one run, in words and fingerprints."""
    fields = {
        field.name: _setting(getattr(method, field.name))
        for field in dataclasses.fields(method)
        if field.name != "num_draws"
    }
    return {
        "method": type(method).__name__,
        **fields,
        "batch_size": batch_size,
        "checkpoint_every": checkpoint_every,
        "structure of the model": _words(model),
        "model": fingerprint(model),
        "data": fingerprint(data),
        "key": fingerprint(key),
    }


def _setting(value):
    words = _words(value)
    if value is None or isinstance(value, bool | int | float | str):
        return words
    # Of arrays words say no more than the shape, and of distributions and functions no
    # more than the name.
    return f"{words} ({fingerprint(value)})"


def _words(value):
    """All settings in a tree, the same in every process."""
    text = eqx.tree_pformat(value)
    # A function whose types are checked is a wrapped one, and the same.
    text = text.replace("<wrapped function ", "<function ")
    return " ".join(re.sub(r" at 0x[0-9a-fA-F]+", "", text).split())
