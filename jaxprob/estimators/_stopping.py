"""The number of training steps at which held-out rows are predicted best."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import bnn
from .._engine.fit import fit

HELD_OUT = 0.2
MOST_HELD_OUT = 2000
FEWEST = 40
"""Rows of a table for which a fifth says something; smaller ones are not split."""

STOPPED = ("chains", "ensemble", "map", "laplace")
"""Methods that train by the mode, whose noise level falls with every row learnt."""

_FIRST = 62


def steps_of_least_loss(
    make: Callable[[int], bnn.AbstractInference],
    likelihood: bnn.Likelihood,
    model: Any,
    data: tuple[np.ndarray, ...],
    *,
    key: Any,
    num_steps: int,
    batch_size: int,
    progress: bool,
) -> int:
    """Return the number of steps after which held-out rows have the highest density.

    Networks that are trained by their posterior's mode learn the noise of a small table
    by heart: the density of new rows rises, and later falls by any amount. A fifth of
    the rows is held out, and the predictive is scored on it after 62, 125,
    250, ... steps of the same schedule. The caller trains on all rows for that number.

    **Arguments:**

    - `make`: returns the method for a number of training rows.
    - `data`: `(x, y)` or `(x, y, weight)`, standardised.
    - `key`: of the held-out rows and the training.
    - `num_steps`: the longest training, for which the method's learning rate falls.
    """
    rows = len(data[0])
    order = np.random.default_rng(0).permutation(rows)
    held = min(round(HELD_OUT * rows), MOST_HELD_OUT)
    training = tuple(leaf[order[held:]] for leaf in data)
    method = make(len(training[0]))
    x, y, *rest = (leaf[order[:held]] for leaf in data)
    weight = rest[0] if rest else np.ones(held)
    state, done, best, chosen = None, 0, -np.inf, num_steps
    for end in _ends(num_steps):
        settings = {} if state is None else {"state": state, "step": done}
        state, _ = fit(
            method,
            model,
            training,
            key=key,
            num_steps=end,
            batch_size=min(batch_size, len(training[0])),
            progress=progress,
            **settings,
        )
        done = end
        posterior = method.posterior(state, [training], key=key)
        predictive = bnn.predict(posterior, likelihood, x, key=key)
        score = _mean(np.asarray(predictive.log_prob(y), np.float64), weight)
        if score > best:
            best, chosen = score, end
    return chosen


def _mean(scores, weight):
    """Return the mean over rows that count; NaN, which is never best, for none."""
    total = weight.sum()
    return float(scores @ weight / total) if total > 0.0 else np.nan


def _ends(num_steps: int) -> list[int]:
    ends = [num_steps]
    while ends[-1] >= 2 * _FIRST:
        ends.append(ends[-1] // 2)
    return ends[::-1]
