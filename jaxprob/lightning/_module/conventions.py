"""Methods of Lightning that a user may override: those without effect are rejected."""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from .._trainer.foreign import is_foreign

_GRADIENT = (
    "there is no gradient outside of the compiled step. Change gradients by an optax "
    "transformation in the learner; look at them by module.gradient(batch) in "
    "on_train_batch_end; log what the step itself computes as a metric of the loss"
)
_SCHEDULE = "schedules are those of optax: optax.adam(schedule)"
_OPTIMIZER = (
    "the optimiser is the learner's, GradientDescent(loss, optax.adam(1e-3)), and what "
    "this method returns would never be used"
)
_STEP = (
    "the optimiser steps inside the compiled program: write an optax transformation, "
    "or look at each step in on_train_batch_end"
)
_NEVER_CALLED = {
    "configure_optimizers": _OPTIMIZER,
    "optimizers": _OPTIMIZER,
    "lr_schedulers": _SCHEDULE,
    "lr_scheduler_step": _SCHEDULE,
    "optimizer_step": _STEP,
    "optimizer_zero_grad": _STEP,
    "backward": _GRADIENT,
    "manual_backward": _GRADIENT,
    "on_before_backward": _GRADIENT,
    "on_after_backward": _GRADIENT,
    "toggle_optimizer": "say in the learner what moves: trainable=...",
    "untoggle_optimizer": "say in the learner what moves: trainable=...",
    "clip_gradients": "write Trainer(gradient_clip_val=1.0)",
    "configure_gradient_clipping": "write Trainer(gradient_clip_val=1.0), or "
    "optax.clip_by_global_norm in the optimiser",
    "configure_sharded_model": "say LearnerModule(..., layout=jaxprob.Layout(data=4))",
}


def check_overrides(module: Any) -> None:
    """Raises `TypeError` for an overridden method that would have no effect in a fit,
    and for automatic optimisation.
    """
    name = type(module).__name__
    for method, remedy in _NEVER_CALLED.items():
        if module.overrides(method):
            raise TypeError(
                f"{name} overrides {method}, which has no effect here: {remedy}"
            )
    if module.automatic_optimization:
        raise ValueError(
            f"{name}.automatic_optimization is True: torch would differentiate, and "
            "nothing would be trained. Leave it False, as LearnerModule sets it"
        )


def check_callback(callback: pl.Callback) -> None:
    """Raises `TypeError` for a user's callback with a hook that never fires."""
    for hook in ("on_before_backward", "on_after_backward"):
        if is_overridden(hook, callback) and is_foreign(callback, hook):
            raise TypeError(
                f"{type(callback).__name__} overrides {hook}, which never fires here: "
                f"{_GRADIENT}"
            )
