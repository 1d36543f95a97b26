"""Validation and test: sums on the device, fetched once at the end."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._engine.layout import Layout
from ..._engine.outside_values import Outside, is_current
from ..._engine.totals import Totals
from ..._jaxpr.host_errors import checks_give_nan
from ..._jaxpr.own_errors import OWN_ERRORS
from ..._training.batch import unaliased, weight
from ..._training.call_loss import checked_info
from ..._training.learner import AbstractLearner
from ..._types import PRNGKey, State


class Evaluation:
    """Means of a learner's metrics, over one or several loaders.

    `jax.jit` on the arrays of the state, cut from the rest once for each stage, costs
    half of `eqx.filter_jit` on the whole of it.
    """

    def __init__(
        self, learner: AbstractLearner, key: PRNGKey, layout: Layout | None = None
    ):
        self._learner = learner
        self._layout = Layout() if layout is None else layout
        self._key = key
        self._static: Any = None
        self._arrays: Any = None
        self._totals: dict[int, Totals] = {}
        self._outside = Outside()
        self._first = True

    def start(self, state: State) -> None:
        """Begin a stage, in which this state is evaluated."""
        self._arrays, static = eqx.partition(state, eqx.is_array)
        now = Outside(self._learner, static)
        same = self._static is not None and eqx.tree_equal(static, self._static)
        if not same or not is_current(self._learner, self._outside, now):
            self._static = static
            self._compiled = jax.jit(self._step)
            self._outside, self._first = now, True
        self._totals = {}

    def __call__(self, batch: PyTree, index: int, loader: int = 0) -> None:
        """Add a batch, whose key is `fold_in(fold_in(key, loader), index)`."""
        batch = self._layout.put(unaliased(batch))
        totals = self._totals.get(loader)
        at = (np.uint32(loader), np.uint32(index))
        if totals is None:
            totals = Totals.zeros(
                jax.eval_shape(self._info, self._arrays, batch, self._key, *at)
            )
        self._totals[loader] = OWN_ERRORS.call(
            self._compiled, self._arrays, batch, totals, self._key, *at
        )

    def means(self) -> dict[int, dict[str, float]]:
        """Return means over examples for each loader. This waits for the device."""
        means = {loader: totals.means() for loader, totals in self._totals.items()}
        self._arrays, self._totals = None, {}
        if self._first and means:
            # Values that tracing changed are counters of the functions themselves.
            now = Outside(self._learner, self._static)
            self._outside.leave_out(self._outside.changed(now))
            self._first = False
        return means

    def _info(self, arrays, batch, key, loader, index):
        state = eqx.combine(arrays, self._static)
        key = jax.random.fold_in(jax.random.fold_in(key, loader), index)
        return checked_info(self._learner.evaluate(state, batch, key=key))

    def _step(self, arrays, batch, totals, key, loader, index):
        info = self._info
        if not self._layout.is_single:
            info = checks_give_nan(info)
        info = info(arrays, batch, key, loader, index)
        return totals.add(info, weight(batch))
