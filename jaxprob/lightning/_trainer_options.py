"""Options of the Trainer that torch would carry out, carried out by the JAX step.

What cannot be honoured is refused here, before anything runs; nothing is ignored.
"""

from dataclasses import dataclass

import jax
import optax
import pytorch_lightning as pl

from .._learner import AbstractLearner


@dataclass(frozen=True)
class Options:
    """What of the Trainer changes the optimiser step."""

    clip: float | None = None
    clip_algorithm: str = "norm"

    def apply(self, learner: AbstractLearner) -> AbstractLearner:
        """The learner with its optax optimiser wrapped accordingly."""
        if self.clip is None:
            return learner
        if self.clip_algorithm == "value":
            clip = optax.clip(self.clip)
        else:
            clip = optax.clip_by_global_norm(self.clip)
        return wrap_optimizer(
            learner,
            lambda optimizer: optax.chain(clip, optimizer),
            f"Trainer(gradient_clip_val={self.clip})",
        )


def take_over(trainer: pl.Trainer) -> Options:
    """Reads the options and clears those that Lightning refuses in a manual loop.

    Called from `configure_callbacks`, the public hook that runs before that refusal.
    """
    _refuse_devices(trainer)
    options = Options()
    if trainer.gradient_clip_val:
        algorithm = str(getattr(trainer.gradient_clip_algorithm, "value", None))
        options = Options(
            float(trainer.gradient_clip_val),
            "value" if algorithm == "value" else "norm",
        )
        trainer.gradient_clip_val = None
    return options


def wrap_optimizer(learner: AbstractLearner, wrap, because: str) -> AbstractLearner:
    """`learner` with `wrap(optimizer)` for each optax transformation that it holds."""
    found = []

    def replace(node):
        if _is_optimizer(node):
            found.append(node)
            return wrap(node)
        return node

    wrapped = jax.tree.map(replace, learner, is_leaf=_is_optimizer)
    if not found:
        raise ValueError(
            f"{because}: {type(learner).__name__} holds no optax optimiser that this "
            "could act on. Leave it out of the Trainer and set it in the learner"
        )
    return wrapped


def _is_optimizer(node):
    return isinstance(node, optax.GradientTransformation)


def _refuse_devices(trainer):
    strategy = type(trainer.strategy).__name__
    if trainer.num_devices > 1 or trainer.world_size > 1 or "DDP" in strategy:
        raise ValueError(
            f"Trainer(devices={trainer.num_devices}, strategy={strategy}): torch "
            "starts a process for each device, JAX drives them all from one. Write "
            "Trainer(accelerator='cpu', devices=1); JAX chooses its own device"
        )
