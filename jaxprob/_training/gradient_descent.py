"""Gradient descent on a loss, with any optax optimiser."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, DTypeLike, Int, PyTree

from .. import tree
from .._types import Info, Loss, Model, PRNGKey, Where
from ..tree._inference_mode import inference_mode
from .call_loss import call_loss, check_by_loss, check_loss, counts_of
from .capabilities import (
    AbstractDataCheck,
    AbstractGradient,
    AbstractLowPrecision,
    AbstractOptimized,
)
from .ema import EMA
from .gradient_norm import logs_norm, with_norm
from .learner import AbstractLearner
from .loss_scale import loss_scale, scaled, unless_left_out
from .low_precision import LowPrecisionLoss
from .optimizer_update import check_optimizer, evaluation_params, optimizer_update


class TrainState(eqx.Module):
    """The state of gradient descent.

    **Fields:**

    - `model`: the model at this step.
    - `opt_state`: optax's state.
    - `ema`: the averaged trainable leaves, or `None`.
    - `step`: updates made so far.
    - `epoch`: number of the epoch, if the loss reads it.
    """

    model: Model
    opt_state: PyTree
    ema: PyTree | None
    step: Int[Array, ""]
    epoch: Int[Array, ""] | None = None


class GradientDescent(
    AbstractLearner,
    AbstractDataCheck,
    AbstractGradient,
    AbstractOptimized,
    AbstractLowPrecision,
):
    """Minimisation of a loss with an optax optimiser.

    ```python
    learner = jaxprob.GradientDescent(loss, optax.adam(1e-3), ema=jaxprob.EMA(0.999))
    state, history = jaxprob.fit(learner, model, (x, y), key=key, num_steps=1000)
    model = learner.model(state)
    ```

    **Arguments:**

    - `loss`: `loss(model, batch, *, key) -> (scalar, metrics)`. `jaxprob.mean_loss`
        makes one from the loss of one example. A metric is one number and has another
        name than `"loss"` and `"step"`. A loss may be an Equinox module; one that is a
        `jaxprob.AbstractCheckedLoss` checks data sets before training. It may give
        `(scalar, (metrics, statistics))` instead: a tree like the model with new
        running statistics and `None` elsewhere. A loss with a parameter `step`,
        `loss(model, batch, *, key, step)`, gets the number of updates made so far as
        an array, and one with a parameter `epoch` that of the epoch, which `fit` and a
        Trainer count from 0: write weights that change over time as functions of them.
        Python values that a loss reads from outside are constants of the compiled step.
    - `optimizer`: any optax transformation. Clipping, weight decay, schedules and
        gradient accumulation (`optax.MultiSteps`) are composed there. Those that need
        the loss or its function (`optax.contrib.reduce_on_plateau`, `optax.lbfgs`,
        line searches) get both; under `optax.MultiSteps` the value is that of the last
        batch alone, and there is no function. `jaxprob.from_total_steps` gives a
        schedule the length of the run, `jaxprob.reduce_on_plateau` reads a metric of
        the validation, and `jaxprob.log_gradient_norm` adds a metric.
    - `ema`: averages the trainable leaves; `evaluate` and `model` then use the average.
        Without it a schedule-free optimiser (`optax.contrib.schedule_free`) gives the
        average that it keeps.
    - `trainable`: which leaves move (see `jaxprob.tree`); all others are bit-equal for
        ever. All inexact arrays by default.
    - `evaluation_loss`: what `evaluate` computes, `loss` by default. Equinox's dropout
        is switched off there by itself; for a model of another package, give the loss
        without it.
    """

    loss: Loss
    optimizer: optax.GradientTransformation
    ema: EMA | None = None
    trainable: Where = True
    evaluation_loss: Loss | None = None

    def __check_init__(self):
        check_optimizer(self.optimizer)
        check_loss("loss", self.loss)
        if self.evaluation_loss is not None:
            check_loss("evaluation_loss", self.evaluation_loss)

    def check(self, model: Model, data: PyTree) -> None:
        """Check a data set by the loss, if that is an `AbstractCheckedLoss`."""
        check_by_loss(self.loss, model, data)

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        params, _ = tree.partition(model, self.trainable)
        if not jax.tree.leaves(params):
            raise ValueError(
                f"trainable={self.trainable!r} leaves nothing to train: the model has "
                "no floating-point array there"
            )
        return TrainState(
            model=model,
            opt_state=self.optimizer.init(params),
            ema=None if self.ema is None else self.ema.init(params),
            step=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32) if self._reads_epoch else None,
        )

    @property
    def _reads_epoch(self):
        return any("epoch" in counts_of(x) for x in (self.loss, self.evaluation_loss))

    def update(
        self, state: TrainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[TrainState, Info]:
        params, rest = tree.partition(state.model, self.trainable)

        scale = loss_scale(state.opt_state)

        def loss(params):
            model = eqx.combine(params, rest)
            value, *aux = call_loss(self.loss, model, batch, key=key, **_counts(state))
            return value, aux

        def scaled_loss(params):
            value, aux = loss(params)
            return scaled(value, scale), (value, aux)

        (_, (value, aux)), grads = jax.value_and_grad(scaled_loss, has_aux=True)(params)
        metrics, statistics = aux
        updates, opt_state = optimizer_update(
            self.optimizer,
            grads,
            state.opt_state,
            params,
            value=value,
            value_fn=lambda params: loss(params)[0],
            **({} if scale is None else {"scale": scale}),
        )
        params = optax.apply_updates(params, updates)
        average = state.ema
        if self.ema is not None:
            average = self.ema.update(average, params, state.step)
        if statistics is not None:
            rest = eqx.combine(statistics, rest)
        model = eqx.combine(params, rest)
        new = TrainState(model, opt_state, average, state.step + 1, state.epoch)
        if scale is not None:
            new = unless_left_out(new, state)
        info = {"loss": value, **metrics}
        if logs_norm(opt_state):
            info = with_norm(info, grads, scale)
        return new, info

    def gradient(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        params, rest = tree.partition(state.model, self.trainable)

        def loss(params):
            model = eqx.combine(params, rest)
            return call_loss(self.loss, model, batch, key=key, **_counts(state))[0]

        return jax.grad(loss)(params)

    def in_low_precision(self, dtype: DTypeLike) -> "GradientDescent":
        """Return the learner whose losses are computed in few bits."""

        def low(loss):
            return None if loss is None else LowPrecisionLoss(loss, dtype)

        losses = low(self.loss), low(self.evaluation_loss)
        return dataclasses.replace(self, loss=losses[0], evaluation_loss=losses[1])

    def evaluate(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> Info:
        model = inference_mode(self.model(state))
        loss = self.loss if self.evaluation_loss is None else self.evaluation_loss
        value, metrics, _ = call_loss(loss, model, batch, key=key, **_counts(state))
        return {"loss": value, **metrics}

    def model(self, state: TrainState) -> Model:
        """Return the averaged model if there is an EMA, else that of the last step.

        A schedule-free optimiser keeps an average, which is returned then.
        """
        params, rest = tree.partition(state.model, self.trainable)
        if state.ema is None:
            return eqx.combine(evaluation_params(state.opt_state, params), rest)
        average = jax.tree.map(lambda a, p: a.astype(p.dtype), state.ema, params)
        return eqx.combine(average, rest)


def _counts(state):
    """Return the numbers that a loss may read."""
    return {"step": state.step, "epoch": state.epoch}
