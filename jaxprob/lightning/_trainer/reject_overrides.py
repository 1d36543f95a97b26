"""Overridden methods of a module that would have no effect: rejected by name."""

from collections.abc import Callable
from typing import Any

from .reject_callbacks import NO_GRADIENT

_SCHEDULE = "schedules are those of optax: optax.adam(schedule)"
_OPTIMIZER = (
    "the optimiser is the learner's, GradientDescent(loss, optax.adam(1e-3)), and the "
    "optimiser that this method returns would never be used"
)
_STEP = (
    "the optimiser steps inside the compiled program: write an optax transformation, "
    "or read each step in on_train_batch_end"
)
NEVER_CALLED = {
    "configure_optimizers": _OPTIMIZER,
    "optimizers": _OPTIMIZER,
    "lr_schedulers": _SCHEDULE,
    "lr_scheduler_step": _SCHEDULE,
    "optimizer_step": _STEP,
    "optimizer_zero_grad": _STEP,
    "backward": NO_GRADIENT,
    "manual_backward": NO_GRADIENT,
    "on_before_backward": NO_GRADIENT,
    "on_after_backward": NO_GRADIENT,
    "toggle_optimizer": "state in the learner what is trained: trainable=...",
    "untoggle_optimizer": "state in the learner what is trained: trainable=...",
    "clip_gradients": "write Trainer(gradient_clip_val=1.0)",
    "configure_gradient_clipping": "write Trainer(gradient_clip_val=1.0), or "
    "optax.clip_by_global_norm in the optimiser",
    "configure_sharded_model": "give layout=jaxprob.Layout(data=4)",
}
"""Alternatives to overriding each of these methods."""


def reject_overrides(module: Any, overrides: Callable[[str], bool]) -> None:
    """Check the methods of a module before a fit.

    **Arguments:**

    - `overrides`: returns whether the user has overridden a method of the module.

    **Raises:** `TypeError` for an overridden method that would have no effect in a fit,
    and `ValueError` for automatic optimisation.
    """
    name = type(module).__name__
    for method, remedy in NEVER_CALLED.items():
        if overrides(method):
            raise TypeError(
                f"{name} overrides {method}, which has no effect here: {remedy}"
            )
    if module.automatic_optimization:
        raise ValueError(
            f"{name}.automatic_optimization is True: torch would differentiate, and "
            "nothing would be trained. Leave it False, as LearnerModule sets it"
        )
