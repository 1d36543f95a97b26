"""Running statistics of the models of a posterior, computed again from the data."""

import itertools
from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._random.keys import check_key, example_keys
from ..._training.batch import num_rows, unpack
from ..._types import PRNGKey
from .._joint.row import as_row
from .._posterior.draws import DrawsPosterior
from .._posterior.posterior import AbstractPosterior
from .._weights.running_statistics import Stateful, copied, statistics
from .training_batches import as_iterable


def refresh_statistics(
    posterior: AbstractPosterior,
    batches: Iterable[PyTree],
    *,
    key: PRNGKey | None = None,
    num_samples: int | None = None,
) -> DrawsPosterior:
    """Return sampled models, each with its running statistics from a pass over data.

    The statistics of training belong to the weights of that step; those of a posterior
    sample have to be computed again. The rows are shared out over as many batches as
    were given, equal in size, and each is run from fresh statistics. Variances are
    those within batches plus that of the batches' means. One batch with all the data is
    exact; so are several for layers that come before any other normalisation.

    Reference: *Averaging weights leads to wider optima and better generalization*,
    Izmailov, Podoprikhin, Garipov, Vetrov and Wilson, 2018, section 3.2,
    https://arxiv.org/abs/1803.05407.

    ```python
    posterior = refresh_statistics(posterior, [(x, y)], key=key, num_samples=30)
    ```

    **Arguments:**

    - `posterior`: over `Stateful` models.
    - `batches`: training batches `(x, y)`.
    - `key`: of the draws; a posterior of finitely many models needs none.
    - `num_samples`: how many to draw; all models of a finite posterior by default.

    **Returns:** a posterior of finitely many models.

    **Raises:** `TypeError` for models that keep no statistics; `ValueError` without a
    batch, or without a number of samples where it is needed.
    """
    parts = [_rows_that_count(batch) for batch in as_iterable(batches)]
    data = _equal_batches(parts)
    template = posterior.mean()
    if not isinstance(template, Stateful):
        raise TypeError(
            f"the posterior is over {type(template).__name__}, which keeps no running "
            "statistics: wrap it as Stateful(net, state)"
        )
    atoms = posterior.num_atoms
    exact = atoms is not None and num_samples is None
    num = atoms if exact else num_samples
    if num is None or (not exact and key is None):
        raise ValueError("give key=... and num_samples=...: the posterior is no list")
    weights = jnp.asarray([float(num_rows(x)) for x in data])
    key = jax.random.key(0) if key is None else key
    check_key(key)
    sample_key, pass_key = jax.random.split(key)
    varies, lead, stats = eqx.is_inexact_array, (1, num), {}
    if isinstance(posterior, DrawsPosterior) and exact:
        varies, lead = _present(posterior.draws), posterior.shape
        stats = posterior.sample_stats

    def one(index):
        if exact:
            model = posterior.atom(index)
        else:
            model = posterior.sample(key=jax.random.fold_in(sample_key, index))
        call_key = jax.random.fold_in(pass_key, index)
        states = [
            _pass(model, x, jax.random.fold_in(call_key, number))
            for number, x in enumerate(data)
        ]
        pooled = eqx.tree_at(lambda m: m.state, model, _pooled(model, weights, states))
        return eqx.combine(statistics(pooled), eqx.filter(model, varies))

    draws = _each(one, num)
    draws = jax.tree.map(lambda a: a.reshape(*lead, *a.shape[1:]), draws)
    rest = jax.tree.map(
        lambda drawn, leaf: None if drawn else leaf,
        _present(draws),
        eqx.nn.inference_mode(template),
    )
    return DrawsPosterior(draws, rest, stats)


def _rows_that_count(batch):
    data, mask = unpack(batch)
    keep = np.asarray(mask)
    return jax.tree.map(lambda a: np.asarray(a)[keep], as_row(data).x)


def _equal_batches(parts):
    """The same rows in as many batches as the largest needs, of equal sizes.

    In a batch of few rows nothing is left of the spread that later layers see.
    """
    sizes = [num_rows(x) for x in parts]
    if not sum(sizes):
        raise ValueError("batches is empty: the statistics need the training data")
    num = -(-sum(sizes) // max(sizes))
    if len(parts) == num and min(sizes) >= max(sizes) - 1:
        return jax.tree.map(jnp.asarray, parts)
    rows = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    ends = np.linspace(0, sum(sizes), num + 1).astype(int)
    return [
        jax.tree.map(lambda a, i=i, j=j: jnp.asarray(a[i:j]), rows)
        for i, j in itertools.pairwise(ends)
    ]


def _present(tree):
    """True at the leaves of a tree, False where it holds None."""
    return jax.tree.map(lambda a: a is not None, tree, is_leaf=lambda a: a is None)


def _each(function, num):
    """All in one program, one after the other: memory is that of one."""
    return eqx.filter_jit(lambda: jax.lax.map(function, jnp.arange(num)))()


def _pass(model, x, key):
    """The statistics of one batch."""
    model = eqx.tree_at(lambda m: m.state, model, copied(model.fresh))
    # Dropout stays off: its noise is no part of the sampled function.
    training = jax.tree.map(
        lambda node: (
            eqx.nn.inference_mode(node, value=False) if _is_layer(node) else node
        ),
        eqx.nn.inference_mode(model),
        is_leaf=_is_layer,
    )

    def one(x, key):
        return training.advance(x, key=key)[1]

    state = jax.vmap(one, out_axes=None, axis_name=model.axis_name)(
        x, example_keys(key, num_rows(x))
    )
    return _settled(model, state)


def _settled(model, state):
    """The statistics of the batch itself, instead of one step of their average.

    BatchNorm's average of variances starts at one, and what is divided out again
    afterwards is a start at zero: after one batch of momentum 0.99 it is off by 99.
    """
    layers = jax.tree.leaves(model.net, is_leaf=_is_batch_norm)
    for layer in filter(_is_batch_norm, layers):
        if layer.mode != "batch":
            continue
        before, after = (s.get(layer.batch_state_index) for s in (model.fresh, state))
        keep = layer.momentum
        mean, var = (
            (b - keep * a) / (1 - keep) for a, b in zip(before, after, strict=True)
        )
        settled = (mean, jnp.maximum(var, 0.0))
        state = state.set(layer.batch_state_index, settled)
        # As after so many batches that nothing is left to divide out.
        count = jnp.full_like(state.get(layer.batch_counter), 2**30)
        state = state.set(layer.batch_counter, count)
    return state


def _is_batch_norm(node):
    return isinstance(node, eqx.nn.BatchNorm)


def _is_layer(node):
    return isinstance(node, eqx.nn.StatefulLayer)


def _pooled(model, rows, states):
    """The statistics of all batches together: variances as of their union."""
    pooled = jax.tree.map(lambda *a: _average(rows, a), *states)
    layers = jax.tree.leaves(model.net, is_leaf=_is_batch_norm)
    for layer in filter(_is_batch_norm, layers):
        index = layer.batch_state_index if layer.mode == "batch" else None
        index = layer.ema_state_index if index is None else index
        means, variances = zip(*(state.get(index) for state in states), strict=True)
        mean = _average(rows, means)
        between = _average(rows, [(m - mean) ** 2 for m in means])
        pooled = pooled.set(index, (mean, _average(rows, variances) + between))
    return pooled


def _average(rows, arrays):
    first = arrays[0]
    if not jnp.issubdtype(first.dtype, jnp.inexact):
        return first
    weights = (rows / jnp.sum(rows)).astype(first.dtype)
    return jnp.tensordot(weights, jnp.stack(arrays), 1)
