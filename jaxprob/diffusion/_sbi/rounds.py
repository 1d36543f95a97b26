"""Training in rounds, of which the state with the lowest held-out loss is kept."""

from collections.abc import Callable
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


def train_best(
    make: Callable[[int, int], Averaged],
    training: PyTree,
    held_out: PyTree,
    choices: list[tuple[int, float]],
    num_members: int,
    *,
    keys: tuple[PRNGKey, PRNGKey, PRNGKey],
    num_steps: int,
    **settings: Any,
) -> tuple[Averaged, History]:
    """Train a pilot of each choice, and all members with the best.

    A pilot has one member and half of the steps.

    **Arguments:**

    - `make`: `make(blocks, num_members)` returns a new model.
    - `choices`: numbers of exchangeable blocks, and weight decays.
    - `keys`: of the pilots, the training and the held-out loss.
    - `settings`: of `train`.

    **Returns:** the model, and the rounds of all trainings.
    """
    pilot_key, fit_key, eval_key = keys
    history: History = []

    def trained(blocks, decay, members, steps, key):
        value, model, rounds = train(
            make(blocks, members),
            training,
            held_out,
            decay,
            keys=(key, eval_key),
            num_steps=steps,
            **settings,
        )
        about = {"members": members, "blocks": blocks, "weight_decay": decay}
        history.extend(entry | about for entry in rounds)
        return value, model

    best = choices[0]
    if len(choices) > 1:
        half = max(1, num_steps // 2)
        losses = [trained(*choice, 1, half, pilot_key)[0] for choice in choices]
        best = choices[int(np.argmin(losses))]
    return trained(*best, num_members, num_steps, fit_key)[1], history


def train(
    model: Averaged,
    training: PyTree,
    held_out: PyTree,
    weight_decay: float,
    *,
    keys: tuple[PRNGKey, PRNGKey],
    learning_rate: float,
    num_steps: int,
    **settings: Any,
) -> tuple[float, Averaged, History]:
    """Train by AdamW, whose rate falls to zero by a cosine.

    **Arguments:**

    - `training`, `held_out`: `(x_0, cond)`.
    - `keys`: of the training and of the held-out loss.
    - `settings`: of `train_in_rounds`.

    **Returns:** the lowest held-out loss, the model that had it, and the rounds.
    """
    loss = DenoisingLoss(EDMWeighting(), LogNormalLevels(-1.2, 1.6))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, learning_rate, min(200, num_steps // 10), num_steps
    )
    optimizer = optax.adamw(
        lambda step: schedule(jnp.asarray(step, float)),
        b2=0.99,
        weight_decay=weight_decay,
    )
    learner = GradientDescent(
        MemberLosses(loss), optimizer, ema=EMA(0.999), evaluation_loss=loss
    )
    return train_in_rounds(
        learner, model, training, held_out, keys, num_steps=num_steps, **settings
    )


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
    # Fewer rounds than asked for, if a pilot has fewer steps.
    for end in np.unique(np.linspace(0, num_steps, num_rounds + 1).astype(int))[1:]:
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
