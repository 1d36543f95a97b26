"""Options of the Trainer that torch would carry out, carried out by the JAX step.

An option that cannot be honoured raises an error before anything runs; none is ignored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax
from pytorch_lightning.plugins.precision import Precision
from pytorch_lightning.profilers import PyTorchProfiler

from ..._training.accumulate import accumulate
from ..._training.capabilities import AbstractOptimized
from ..._training.learner import AbstractLearner
from ..._training.loss_scale import dynamic_loss_scale
from ..._training.optimizer_update import accepts_extra
from . import precision as _precision


@dataclass(frozen=True)
class Options:
    """Options of the Trainer that change the optimiser step.

    **Arguments:**

    - `clip`, `clip_algorithm`: of the gradient, `"norm"` or `"value"`.
    - `accumulate`: batches whose gradients are averaged for one update.
    - `precision`: Lightning's name of it.
    """

    clip: float | None = None
    clip_algorithm: str = "norm"
    accumulate: int = 1
    precision: str = "32-true"

    def apply(self, learner: AbstractLearner) -> AbstractLearner:
        """Return the learner with its optimiser and its loss wrapped accordingly."""
        if self.clip is not None:
            by_value = self.clip_algorithm == "value"
            clip = (optax.clip if by_value else optax.clip_by_global_norm)(self.clip)
            learner = wrap_optimizer(
                learner,
                lambda optimizer: _clipped(clip, accepts_extra(optimizer)),
                f"Trainer(gradient_clip_val={self.clip})",
            )
        if self.accumulate > 1:
            learner = wrap_optimizer(
                learner,
                lambda optimizer: accumulate(accepts_extra(optimizer), self.accumulate),
                f"Trainer(accumulate_grad_batches={self.accumulate})",
            )
        if self.precision == "16-mixed":
            # Outermost: clipping and accumulation see the true gradient.
            learner = wrap_optimizer(
                learner, dynamic_loss_scale, "Trainer(precision='16-mixed')"
            )
        return _precision.in_precision(learner, self.precision)


def _clipped(clip, optimizer):
    """Return the optimiser with a clipped gradient, and a state of the same form.

    `optax.chain` would add a level to the state, and a checkpoint of a run without
    clipping would be one of another optimiser.
    """

    def update(updates, state, params=None, **extra):
        clipped, _ = clip.update(updates, optax.EmptyState(), params)
        return optimizer.update(clipped, state, params, **extra)

    return optax.GradientTransformationExtraArgs(optimizer.init, update)


def take_over(
    trainer: Any, take_loader: Callable[[Any], Any]
) -> tuple[Options, Callable[[], None]]:
    """Read the options and clear those that Lightning rejects in a manual loop.

    It is called from `configure_callbacks`, the public hook that Lightning calls before
    it rejects them.

    **Arguments:**

    - `take_loader`: called with each loader; returns the one that Lightning iterates.

    **Returns:** the options, and a function that gives them back to the Trainer, so
    that it can be used again.
    """
    _reject_profiler(trainer)
    _precision.check(trainer.precision)
    before = {
        "gradient_clip_val": trainer.gradient_clip_val,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
    }
    strategy = trainer.strategy
    plugin, process = strategy.precision_plugin, strategy.process_dataloader
    algorithm = str(getattr(trainer.gradient_clip_algorithm, "value", None))
    options = Options(
        clip=float(before["gradient_clip_val"]) if trainer.gradient_clip_val else None,
        clip_algorithm="value" if algorithm == "value" else "norm",
        accumulate=trainer.accumulate_grad_batches,
        precision=trainer.precision,
    )
    trainer.gradient_clip_val, trainer.accumulate_grad_batches = None, 1
    # Torch's plugin would search our batches for tensors, and the cast is ours.
    strategy.precision_plugin = Precision()
    strategy.process_dataloader = lambda loader: process(take_loader(loader))

    def give_back():
        for name, value in before.items():
            setattr(trainer, name, value)
        strategy.precision_plugin = plugin
        strategy.process_dataloader = process

    return options, give_back


def wrap_optimizer(
    learner: AbstractLearner, wrap: Callable[[Any], Any], because: str
) -> AbstractLearner:
    """Return the learner with `wrap(optimizer)` for each of its optimisers.

    **Raises:** `ValueError` for a learner that optax does not move, or not alone.
    """
    optimized = learner.capability(AbstractOptimized)
    if optimized is None:
        raise ValueError(
            f"{because} acts on optax optimisers that make all steps of a learner, and "
            f"{learner.lack(AbstractOptimized)}. Leave it out of the Trainer"
        )
    return optimized.map_optimizers(wrap)


def _reject_profiler(trainer):
    if isinstance(trainer.profiler, PyTorchProfiler):
        raise ValueError(
            "PyTorchProfiler times the operators of torch, and none of them runs. "
            "profiler='simple' times the hooks; wrap the fit in jax.profiler.trace("
            "folder) to see the device"
        )
