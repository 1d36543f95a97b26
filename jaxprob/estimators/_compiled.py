"""Statistics of the predictive of a table's rows, by programs that are kept."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import bnn
from ..bnn._predictive.draw_outputs import NUM_SAMPLES
from ..bnn._predictive.static import Static
from ..datasets import Standardizer

TILE = 4
"""Rows computed at a time. All programs are loops over such tiles, so that the
prediction of a row does not depend on how many others there are, to the last bit."""

SIZES = (2 * TILE, 64, 1024)
"""Rows of the programs; others are padded. Each size is compiled when it is needed.

XLA removes a loop over a single tile and then fuses, and rounds, in another way: the
smallest program has two."""

_MODELS = 64


class Fitted:
    """A trained posterior with the scaler that maps rows of the table to its inputs.

    Programs and the factorised posterior are kept beside the object and not in it: they
    are neither pickled nor saved.
    """

    def __init__(
        self, posterior: bnn.AbstractPosterior, likelihood: bnn.Likelihood,
        scaler: Standardizer, key: Any, num_samples: int | None,
        *, keeps_outputs: bool = False,
    ):  # fmt: skip
        self.posterior = posterior
        self.likelihood = likelihood
        self.scaler = scaler
        self.key = key
        self.num_samples = num_samples
        self.keeps_outputs = keeps_outputs

    def ask(
        self, statistic: Callable, x: np.ndarray, *rows: Any, shared: tuple = ()
    ) -> Any:
        """Return a statistic of each row as NumPy arrays.

        With `keeps_outputs` the outputs of the last rows are kept for other statistics
        of them: those of a density cost far more than any statistic.

        **Arguments:**

        - `statistic`: `statistic(predictive, *rows, *shared)`, a function at the top of
            a module, whose results have a leading axis of rows.
        - `x`: rows of the table, as numbers in its units.
        - `rows`: arrays with an entry for each row.
        - `shared`: arrays for all rows.
        """
        x = self.scaler(x).astype(np.float32)
        if not self.keeps_outputs:
            return self._of_inputs(statistic, x, *rows, shared=shared)
        last, outputs = _outputs.get(self, (x[:0], None))
        if not (len(x) <= len(last) and np.array_equal(x, last[: len(x)])):
            last, outputs = x, self._of_inputs(_all_outputs, x)
            _outputs[self] = last, outputs
        kept = jax.tree.map(lambda a: a[: len(x)], outputs)
        return _in_parts(
            lambda *cut: _of_outputs(
                *cut, shared=shared, statistic=statistic, likelihood=self.likelihood
            ),
            kept,
            *rows,
        )

    def _of_inputs(self, statistic, x, *rows, shared=()):
        return _in_parts(
            lambda *cut: _program(
                *_ready(self), self.key, *cut, shared=shared, statistic=statistic
            ),
            x,
            *rows,
        )


def _in_parts(function, *rows):
    """Return a function of rows, of at most the largest size at a time."""
    parts, count = [], len(jax.tree.leaves(rows)[0])
    for start in range(0, count, SIZES[-1]):
        cut = jax.tree.map(lambda a, i=start: np.asarray(a)[i : i + SIZES[-1]], rows)
        num = len(jax.tree.leaves(cut)[0])
        found = function(*jax.tree.map(_padded, cut))
        parts.append(jax.tree.map(lambda a, n=num: np.asarray(a)[:n], found))
    return jax.tree.map(lambda *a: np.concatenate(a), *parts)


@functools.partial(jax.jit, static_argnames=("statistic", "num_samples"))
def _program(static, num_samples, key, x, *rows, shared, statistic):
    posterior, likelihood = static.value
    predictive = bnn.predict(
        posterior,
        likelihood,
        x,
        key=key,
        num_samples=num_samples,
        batch_size=TILE,
        model_batch_size=_MODELS,
    )
    return statistic(predictive, *rows, *shared)


@functools.partial(jax.jit, static_argnames=("statistic", "likelihood"))
def _of_outputs(outputs, *rows, shared, statistic, likelihood):
    predictive = bnn.Predictive(outputs, likelihood, batch_size=TILE)
    return statistic(predictive, *rows, *shared)


def _all_outputs(predictive):
    return predictive.outputs


_outputs: weakref.WeakKeyDictionary[Fitted, tuple] = weakref.WeakKeyDictionary()
_kept: weakref.WeakKeyDictionary[Fitted, tuple] = weakref.WeakKeyDictionary()


def _ready(fitted):
    """Posterior and likelihood as an argument of `jax.jit`, and the number of samples.

    Models of a density are drawn here, once, with the keys that `bnn.predict` uses.
    """
    if fitted not in _kept:
        posterior, num_samples = fitted.posterior.factorised(), fitted.num_samples
        if posterior.num_atoms is None and not posterior.linearized:
            posterior = _drawn(posterior, fitted.key, num_samples or NUM_SAMPLES)
            num_samples = None
        parts = Static.of((posterior, fitted.likelihood))
        _kept[fitted] = jax.tree.map(jnp.asarray, parts), num_samples
    return _kept[fitted]


@eqx.filter_jit
def _drawn(posterior, key, num_samples):
    """The draws of a posterior as one chain."""

    def one(index):
        model_key, _ = jax.random.split(jax.random.fold_in(key, index))
        return eqx.partition(posterior.sample(key=model_key), eqx.is_array)

    draws, rest = eqx.filter_vmap(one, out_axes=(0, None))(jnp.arange(num_samples))
    return bnn.DrawsPosterior(jax.tree.map(lambda a: a[None], draws), rest)


def _padded(rows):
    """Rows with the first repeated, up to one of the sizes."""
    size = next(size for size in SIZES if size >= len(rows))
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
