"""The cause of a step that broke the state, found from its batch."""

import dataclasses

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._training.batch import unpack
from .._training.capabilities import AbstractDataCheck, AbstractGradient
from .._training.learner import AbstractLearner
from .._types import PRNGKey, State
from .last_good import Break


def gradient_of(
    learner: AbstractLearner, state: State, batch: PyTree, key: PRNGKey
) -> PyTree | None:
    """Return the gradient on a batch; `None` of a learner that follows none."""
    capability = learner.capability(AbstractGradient)
    if capability is None:
        return None
    return eqx.filter_jit(capability.gradient)(state, batch, key=key)


def with_check_error(found: Break, learner: AbstractLearner, state: State) -> Break:
    """Return a break with the error that the learner's check raises for its batch.

    A batch from an iterable may not have been checked before.
    """
    error = _error_of_check(learner, state, found.batch)
    return dataclasses.replace(found, check_error=error)


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
