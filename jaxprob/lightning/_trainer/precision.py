"""What `Trainer(precision=...)` means for a JAX step.

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
`jaxprob.dynamic_loss_scale` does round the optimiser; a method without one is refused.
Lightning makes `"bf16-mixed"` of it where its own accelerator is the CPU, and says so.

Low precision is refused for HMC, whose acceptance step looks at differences of log
densities, and float16 for parameters (`"16-true"`), whose updates it would round away.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..._training.gradient_descent import GradientDescent
from ..._training.learner import AbstractLearner
from ..._training.low_precision import LowPrecisionLoss, cast
from ..._types import Info, Model, PRNGKey, State
from ...bnn import HMC, NUTS, LogJoint

_MIXED = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
STORED = {"bf16-true": "bfloat16", "64-true": "float64"}
_KNOWN = ("32-true", *_MIXED, *STORED)


def check(precision: str) -> None:
    """Raises `ValueError` for a precision that would not be honoured."""
    if precision not in _KNOWN:
        raise ValueError(
            f"Trainer(precision={precision!r}) is not honoured: choose one of "
            f"{', '.join(_KNOWN)}"
        )
    if precision == "64-true" and not jax.config.jax_enable_x64:  # pyright: ignore
        raise ValueError(
            "Trainer(precision='64-true'): JAX makes float32 of every float64 until it "
            "is told otherwise. Begin the program with "
            "jax.config.update('jax_enable_x64', True)"
        )


def in_precision(learner: AbstractLearner, precision: str) -> AbstractLearner:
    """The learner with its step in a precision.

    **Raises:** `ValueError` for a learner in which it could not be honoured.
    """
    if precision in (*_MIXED, "bf16-true"):
        _refuse_hmc(learner, precision)
    if precision in _MIXED:
        return _mixed(learner, precision)
    if precision in STORED:
        return CastBatches(learner, STORED[precision])
    return learner


def _mixed(learner, precision):
    dtype = _MIXED[precision]
    if isinstance(learner, GradientDescent):
        losses = (learner.loss, learner.evaluation_loss)
        low = tuple(
            None if loss is None else LowPrecisionLoss(loss, dtype) for loss in losses
        )
        return eqx.tree_at(
            lambda it: (it.loss, it.evaluation_loss),
            learner,
            low,
            is_leaf=lambda node: node is None,
        )
    joints = 0

    def lower(node):
        nonlocal joints
        if not isinstance(node, LogJoint):
            return node
        joints += 1
        low = LowPrecisionApply(node.apply, dtype)
        return eqx.tree_at(lambda it: it.apply, node, low)

    low = jax.tree.map(lower, learner, is_leaf=lambda node: isinstance(node, LogJoint))
    if not joints:
        raise ValueError(
            f"Trainer(precision={precision!r}): {type(learner).__name__} has neither a "
            f"loss nor a LogJoint whose network could run in {dtype}. Use '32-true' or "
            "'bf16-true'"
        )
    return low


def _refuse_hmc(learner, precision):
    def accepts(node):
        return isinstance(node, HMC | NUTS)

    if any(map(accepts, jax.tree.leaves(learner, is_leaf=accepts))):
        raise ValueError(
            f"Trainer(precision={precision!r}): Hamiltonian Monte Carlo accepts or "
            "rejects by differences of log densities, which low precision rounds "
            "away. Use '32-true' or '64-true'"
        )


def for_prediction(learner: AbstractLearner, tree: PyTree) -> PyTree:
    """A posterior, or inputs, in the precision of predictions.

    It is that of training, but never less than float32: quantiles need it.
    """
    if not isinstance(learner, CastBatches):
        return tree
    wide = jnp.finfo(learner.dtype).bits >= 32
    return cast(tree, learner.dtype if wide else jnp.float32)


class LowPrecisionApply(eqx.Module):
    """How a `LogJoint` calls its network, in few bits and back to float32.

    **Arguments:**

    - `apply`: as in `LogJoint`.
    - `dtype`: name of the dtype.
    """

    apply: Callable[..., Any]
    dtype: str = eqx.field(static=True)

    def __call__(self, model: Model, x: PyTree, *, key: PRNGKey | None) -> Any:
        low = (cast(model, self.dtype), cast(x, self.dtype))
        return cast(self.apply(*low, key=key), jnp.float32)


class CastBatches(AbstractLearner):
    """A learner whose batches come in another precision than the loader's.

    **Arguments:**

    - `learner`: the one that trains.
    - `dtype`: name of the dtype.
    """

    learner: AbstractLearner
    dtype: str = eqx.field(static=True)

    def init(self, model: Model, *, key: PRNGKey) -> State:
        return self.learner.init(cast(model, self.dtype), key=key)

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        return self.learner.update(state, cast(batch, self.dtype), key=key)

    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.learner.evaluate(state, cast(batch, self.dtype), key=key)

    def model(self, state: State) -> Model:
        return self.learner.model(state)
