"""Statistics of the predictive of a table's rows, by programs that are kept."""

import functools
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import bnn
from ..bnn._predictive.static import Static
from ..datasets import Standardizer

TILE = 8
"""Rows computed at a time. Programs for more rows are loops over such tiles, so that
the prediction of a row does not depend on how many others there are."""

SIZES = (TILE, 64, 1024)
"""Rows of the programs; others are padded. Each size is compiled when it is needed."""

_MODELS = 64


class Fitted:
    """A trained posterior with the scaler that maps rows of the table to its inputs.

    Programs and the factorised posterior are kept beside the object and not in it: they
    are neither pickled nor saved.
    """

    def __init__(
        self, posterior: bnn.AbstractPosterior, likelihood: bnn.Likelihood,
        scaler: Standardizer, key: Any, num_samples: int | None,
    ):  # fmt: skip
        self.posterior = posterior
        self.likelihood = likelihood
        self.scaler = scaler
        self.key = key
        self.num_samples = num_samples

    def ask(
        self, statistic: Callable, x: np.ndarray, *rows: Any, shared: tuple = ()
    ) -> Any:
        """Return a statistic of each row as NumPy arrays.

        **Arguments:**

        - `statistic`: `statistic(predictive, *rows, *shared)`, a function at the top of
            a module, whose results have a leading axis of rows.
        - `x`: rows of the table, as numbers in its units.
        - `rows`: arrays with an entry for each row.
        - `shared`: arrays for all rows.
        """
        x = self.scaler(x).astype(np.float32)
        parts = []
        for start in range(0, len(x), SIZES[-1]):
            cut = [np.asarray(a)[start : start + SIZES[-1]] for a in (x, *rows)]
            count = len(cut[0])
            padded = [_padded(a) for a in cut]
            found = _program(
                _ready(self), self.key, *padded, shared=shared, statistic=statistic,
                num_samples=self.num_samples,
            )  # fmt: skip
            parts.append(jax.tree.map(lambda a, n=count: np.asarray(a)[:n], found))
        return jax.tree.map(lambda *a: np.concatenate(a), *parts)


@functools.partial(jax.jit, static_argnames=("statistic", "num_samples"))
def _program(static, key, x, *rows, shared, statistic, num_samples):
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


_kept: weakref.WeakKeyDictionary[Fitted, Static] = weakref.WeakKeyDictionary()


def _ready(fitted):
    """The factorised posterior and its likelihood as an argument of `jax.jit`."""
    if fitted not in _kept:
        parts = (fitted.posterior.factorised(), fitted.likelihood)
        _kept[fitted] = jax.tree.map(jnp.asarray, Static.of(parts))
    return _kept[fitted]


def _padded(rows):
    """Rows with the first repeated, up to one of the sizes."""
    size = next(size for size in SIZES if size >= len(rows))
    return np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
