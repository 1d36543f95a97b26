"""Callbacks that cannot work without torch parameters: rejected by name."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    ThroughputMonitor,
    WeightAveraging,
)
from pytorch_lightning.utilities.model_helpers import is_overridden

from .foreign import is_foreign

NO_GRADIENT = (
    "there is no gradient outside of the compiled step. Change gradients by an optax "
    "transformation in the learner; read them by module.gradient(batch) in "
    "on_train_batch_end; log what the step itself computes as a metric of the loss"
)
"""Alternative to a hook that reads or changes gradients."""

_REMEDIES = {
    WeightAveraging: "give the learner ema=jaxprob.EMA(0.999): this callback averages "
    "torch parameters, and the module has none",
    StochasticWeightAveraging: "give the learner ema=jaxprob.EMA(0.999): this callback "
    "averages torch parameters, and the module has none",
    LearningRateFinder: "it sets the rate of a torch optimiser. Compare a few rates in "
    "short runs of jaxprob.fit, or use optax's schedules",
    BatchSizeFinder: "it waits for torch to run out of memory. Give batch_size=...",
    BaseFinetuning: "it freezes torch parameters, and the module has none. State what "
    "is trained in the learner: trainable=jaxprob.tree.freeze(model, 'layers.0')",
    ModelPruning: "it masks torch parameters, and the module has none. Set leaves of "
    "module.model to zero with equinox.tree_at, and train the result",
    GradientAccumulationScheduler: "it changes an option of torch's loop. Give the "
    "learner optax.MultiSteps(optimizer, every_k_schedule=...).gradient_transformation"
    "(), whose schedule counts updates",
}


def reject_callbacks(trainer: Any, *, shows_each_batch: bool) -> None:
    """Check the callbacks of a Trainer.

    **Arguments:**

    - `shows_each_batch`: whether a dispatch holds one step.

    **Raises:** `ValueError` for a callback that would do nothing or count wrongly, and
    `TypeError` for one with a hook that is never called.
    """
    module = type(trainer.lightning_module).__name__
    for callback in trainer.callbacks:
        _check_hooks(callback)
        if isinstance(callback, ThroughputMonitor) and not shows_each_batch:
            raise ValueError(
                "ThroughputMonitor counts one batch for each dispatch, which holds "
                f"many: write {module}(..., steps_per_dispatch=1), or measure the "
                "time of a whole epoch"
            )
        for kind, remedy in _REMEDIES.items():
            if isinstance(callback, kind):
                name = type(callback).__name__
                raise ValueError(f"{name} cannot work here: {remedy}")


def _check_hooks(callback: pl.Callback) -> None:
    for hook in ("on_before_backward", "on_after_backward"):
        if is_overridden(hook, callback) and is_foreign(callback, hook):
            raise TypeError(
                f"{type(callback).__name__} overrides {hook}, which is never called "
                f"here: {NO_GRADIENT}"
            )
