"""Meaning of `Trainer(precision=...)` for a JAX step.

| precision | parameters | computation |
|---|---|---|
| `"32-true"` | as the model has them | the same |
| `"bf16-mixed"` | as the model has them (float32) | the network in bfloat16 |
| `"16-mixed"` | as the model has them (float32) | the network in float16 |
| `"bf16-true"` | bfloat16 | bfloat16 |
| `"64-true"` | float64 | float64 |

What mixed precision lowers is the whole loss of a `GradientDescent`, and of a method of
`jaxprob.bnn` the network alone: likelihood, prior and divergence, which are sums over
all weights and all data, stay in float32, and so do posterior and predictive.

float16 needs its loss scaled to keep small gradients from vanishing, which
`jaxprob.dynamic_loss_scale` does around the optimiser; a method without one raises an
error. Lightning replaces it by `"bf16-mixed"` where its accelerator is the CPU, with a
warning.

Low precision is rejected for HMC, whose acceptance step depends on differences of log
densities, and float16 for parameters (`"16-true"`), whose updates it would round away.
"""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.capabilities import AbstractAcceptReject, AbstractLowPrecision
from ..._training.learner import AbstractLearner
from ..._training.low_precision import cast
from ..._training.wrapper import SAME_STATE, AbstractLearnerWrapper, Withheld
from ..._types import Info, Model, PRNGKey, State
from ...bnn._inference.capabilities import AbstractConditional, AbstractTrainedModels

_MIXED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
STORED = {"bf16-true": "bfloat16", "64-true": "float64"}
_KNOWN = ("32-true", *_MIXED, *STORED)


def check(precision: str) -> None:
    """Check that a precision can be honoured.

    **Raises:** `ValueError` that names those that can.
    """
    if precision not in _KNOWN:
        raise ValueError(
            f"Trainer(precision={precision!r}) is not honoured: choose one of "
            f"{', '.join(_KNOWN)}"
        )
    if precision == "64-true" and not jax.config.jax_enable_x64:  # pyright: ignore
        raise ValueError(
            "Trainer(precision='64-true'): JAX makes float32 of every float64 by "
            "default. Begin the program with "
            "jax.config.update('jax_enable_x64', True)"
        )


def in_precision(learner: AbstractLearner, precision: str) -> AbstractLearner:
    """Return the learner with its step in a precision.

    **Raises:** `ValueError` for a learner in which it could not be honoured.
    """
    if precision in (*_MIXED, "bf16-true"):
        _reject_acceptance(learner, precision)
    if precision in _MIXED:
        return _mixed(learner, precision)
    if precision in STORED:
        return CastBatches(learner, STORED[precision])
    return learner


def _mixed(learner, precision):
    lowers = learner.capability(AbstractLowPrecision)
    if lowers is None:
        raise ValueError(
            f"Trainer(precision={precision!r}) computes the network in few bits, and "
            f"{learner.lack(AbstractLowPrecision)}. Use '32-true' or 'bf16-true'"
        )
    return lowers.in_low_precision(_MIXED[precision])


def _reject_acceptance(learner, precision):
    if learner.capability(AbstractAcceptReject) is not None:
        raise ValueError(
            f"Trainer(precision={precision!r}): Hamiltonian Monte Carlo accepts or "
            "rejects by differences of log densities, which low precision rounds "
            "away. Use '32-true' or '64-true'"
        )


def for_prediction(learner: AbstractLearner, tree: PyTree) -> PyTree:
    """A posterior, or inputs, in the precision of predictions.

    It is that of training, but never less than float32: quantiles need it.
    """
    return learner.inner_data(tree) if isinstance(learner, CastBatches) else tree


class CastBatches(AbstractLearnerWrapper):
    """A learner whose batches are cast to another precision than the loader's.

    **Arguments:**

    - `learner`: the one that trains.
    - `dtype`: name of the dtype.
    """

    forwards: ClassVar = SAME_STATE | {
        AbstractTrainedModels: Withheld("it trains inside a Trainer alone"),
        AbstractConditional: Withheld("it trains inside a Trainer alone"),
    }
    learner: AbstractLearner
    dtype: str = eqx.field(static=True)

    @property
    def inner(self) -> AbstractLearner:
        return self.learner

    def inner_batch(self, batch: PyTree) -> PyTree:
        return cast(batch, self.dtype)

    def inner_data(self, tree: PyTree) -> PyTree:
        """Return a tree in this precision, but never less than float32."""
        wide = jnp.finfo(self.dtype).bits >= 32
        return cast(tree, self.dtype if wide else jnp.float32)

    def init(self, model: Model, *, key: PRNGKey) -> State:
        return self.learner.init(cast(model, self.dtype), key=key)

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        return self.learner.update(state, self.inner_batch(batch), key=key)

    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.learner.evaluate(state, self.inner_batch(batch), key=key)

    def model(self, state: State) -> Model:
        return self.learner.model(state)
