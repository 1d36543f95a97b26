"""Training in rounds, of which the state with the lowest held-out loss is kept."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from ..._engine.evaluate import evaluate
from ..._engine.fit import History, fit
from ..._training.ema import EMA
from ..._training.gradient_descent import GradientDescent
from ..._types import PRNGKey
from .._denoiser.averaged import Averaged
from .._loss.loss import DenoisingLoss
from .._loss.member_losses import MemberLosses
from .._loss.times import LogNormalLevels
from .._loss.weighting import EDMWeighting


def best_of_decays(
    model: Averaged,
    training: PyTree,
    held_out: PyTree,
    decays: list[float],
    *,
    keys: tuple[PRNGKey, PRNGKey],
    learning_rate: float,
    num_steps: int,
    **settings: Any,
) -> tuple[Averaged, History]:
    """Train with each weight decay, and return the model with the lowest loss.

    **Arguments:**

    - `training`, `held_out`: `(x_0, cond)`.
    - `keys`: of the training and of the held-out loss.
    - `settings`: of `train_in_rounds`.

    **Returns:** the model, and the rounds of all decays.
    """
    loss = DenoisingLoss(EDMWeighting(), LogNormalLevels(-1.2, 1.6))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(200, num_steps // 10), num_steps
    )
    lowest, best, history = np.inf, model, []
    for decay in decays:
        optimizer = optax.adamw(
            lambda step: schedule(jnp.asarray(step, float)),
            b2=0.99,
            weight_decay=decay,
        )
        learner = GradientDescent(
            MemberLosses(loss), optimizer, ema=EMA(0.999), evaluation_loss=loss
        )
        value, trained, rounds = train_in_rounds(
            learner, model, training, held_out, keys, num_steps=num_steps, **settings
        )
        history += [entry | {"weight_decay": decay} for entry in rounds]
        if value < lowest:
            lowest, best = value, trained
    return best, history


def train_in_rounds(
    learner: GradientDescent,
    model: Averaged,
    training: PyTree,
    held_out: PyTree,
    keys: tuple[PRNGKey, PRNGKey],
    *,
    num_steps: int,
    num_rounds: int,
    batch_size: int,
    progress: bool,
) -> tuple[float, Averaged, History]:
    """Train, and return the lowest held-out loss, the model that had it, and all.

    The rounds together have the bits of one training of `num_steps`.
    """
    fit_key, eval_key = keys
    state, lowest, best, history = None, np.inf, model, []
    for end in np.unique(np.linspace(0, num_steps, num_rounds + 1).astype(int)[1:]):
        done = 0 if state is None else int(history[-1]["step"])
        settings = {} if state is None else {"state": state, "step": done}
        state, epochs = fit(
            learner,
            model,
            training,
            key=fit_key,
            num_steps=int(end),
            batch_size=batch_size,
            progress=progress,
            **settings,
        )
        value = evaluate(learner, state, held_out, key=eval_key)["loss"]
        history.append(
            {"step": float(end), "loss": epochs[-1]["mean_loss"], "val_loss": value}
        )
        if value < lowest:
            lowest, best = value, learner.model(state)
    return lowest, best, history
