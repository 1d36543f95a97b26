"""The learning rate that `LearningRateMonitor` shows."""

from collections.abc import Callable
from typing import Any

import jax

from ..._types import State
from .._loop.engine import Engine


def learning_rate(engine: Engine, schedule: Callable[[Any], Any] | None) -> float:
    """Return the learning rate of the next update.

    **Arguments:**

    - `schedule`: `step -> learning rate`. Without it, the rate is that of
        `optax.inject_hyperparams`, and NaN of any other optimiser.
    """
    if schedule is not None:
        step = engine.fit.updates_before + engine.trainer.global_step
        return float(schedule(step))
    return _injected(engine.run.state)


def _injected(state: State):
    def has(node):
        return hasattr(node, "hyperparams")  # optax has several classes of this form

    for node in jax.tree.leaves(state, is_leaf=has):
        if has(node) and "learning_rate" in node.hyperparams:
            return float(node.hyperparams["learning_rate"])
    return float("nan")
