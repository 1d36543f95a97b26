"""The cause of a step that broke the state, found from its batch."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._random.keys import step_key
from .._training.batch import unaliased, unpack
from .._training.capabilities import AbstractDataCheck, AbstractGradient
from .._training.learner import AbstractLearner
from .._types import PRNGKey, State
from .last_good import Break
from .layout import Layout


def explained(
    found: Break, learner: AbstractLearner, state: State, layout: Layout, key: PRNGKey
) -> tuple[Break, PyTree | None]:
    """Return a break with the error of the learner's check, and its gradient.

    A batch from an iterable may not have been checked before. The gradient is `None`
    for a learner that follows none.

    **Arguments:**

    - `state`: the whole state before the step that broke.
    - `key`: of the whole run.
    """
    error = _error_of_check(learner, state, found.batch)
    found = dataclasses.replace(found, check_error=error)
    capability = learner.capability(AbstractGradient)
    if capability is None:
        return found, None
    batch = layout.put(unaliased(found.batch))
    gradient = eqx.filter_jit(capability.gradient)
    return found, gradient(state, batch, key=step_key(key, found.step))


def _error_of_check(learner, state, batch):
    checks = learner.capability(AbstractDataCheck)
    if checks is None:
        return None
    try:
        data, mask = unpack(batch)
    except ValueError:  # no table of rows
        return None
    rows = np.flatnonzero(np.asarray(mask))
    if len(rows) < 2:  # too few for a check that is for whole data sets
        return None
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], data)
    try:
        checks.check(learner.model(state), data)
    except (ValueError, TypeError) as error:
        return str(error)
    return None
