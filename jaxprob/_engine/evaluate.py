"""Means of a learner's metrics over a data set, in one compiled program."""

import weakref
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._jaxpr.host_errors import checks_give_nan
from .._jaxpr.own_errors import OWN_ERRORS
from .._random.keys import check_key
from .._training.batch import unaliased, weight
from .._training.call_loss import checked_info
from .._training.host_batch import host_batch
from .._training.learner import AbstractLearner
from .._types import PRNGKey, State
from .data_sets import as_loader, first_pass_check
from .layout import Layout
from .outside_values import Outside, is_current
from .per_object import PerObject
from .totals import Totals


def evaluate(
    learner: AbstractLearner,
    state: State,
    data: PyTree | Iterable[PyTree],
    *,
    key: PRNGKey,
    batch_size: int = 256,
) -> dict[str, float]:
    """Return means of the learner's metrics over a data set; nothing is trained.

    **Arguments:** as in `fit`; batch i gets the key `fold_in(key, i)`.

    **Returns:** metrics by name, each example counted once.
    """
    check_key(key)
    loader = as_loader(data, batch_size, shuffle=False, seed=0)
    check = first_pass_check(loader, learner, learner.model(state), training=False)
    return Evaluator(learner)(state, check.over(loader), key=key)


class Evaluator:
    """Compiled evaluation of one learner: sums on the device, fetched once."""

    def __init__(self, learner: AbstractLearner, layout: Layout | None = None):
        self._learner = learner
        self._layout = layout = Layout() if layout is None else layout
        self._outside, self._step = _EVALUATIONS.get(
            learner,
            layout,
            lambda: (Outside(learner), _step(learner, layout)),
            lambda made: is_current(learner, made[0], Outside(learner)),
        )

    def __call__(
        self, state: State, loader: Iterable[PyTree], *, key: PRNGKey
    ) -> dict[str, float]:
        totals = None
        for index, batch in enumerate(loader):
            batch = self._layout.put(unaliased(host_batch(batch)))
            first = totals is None
            number = np.uint32(index)
            totals = OWN_ERRORS.call(self._step, state, batch, totals, key, number)
            if first:
                now = Outside(self._learner)
                self._outside.leave_out(self._outside.changed(now))
        if totals is None:
            raise ValueError("the data to evaluate on gave no batch")
        return totals.means()


def _step(learner, layout):
    reference = weakref.ref(learner)

    @eqx.filter_jit
    def step(state, batch, totals, key, index):
        arrays, static = eqx.partition(state, eqx.is_array)

        def evaluate(arrays, batch, key, index):
            learner = reference()
            assert learner is not None  # the caller holds it
            state = eqx.combine(arrays, static)
            key = jax.random.fold_in(key, index)
            return checked_info(learner.evaluate(state, batch, key=key))

        if not layout.is_single:
            evaluate = checks_give_nan(evaluate)
        info = evaluate(arrays, batch, key, index)
        totals = Totals.zeros(info) if totals is None else totals
        return totals.add(info, weight(batch))

    return step


_EVALUATIONS: PerObject[tuple[Outside, Callable[..., Totals]]] = PerObject()
