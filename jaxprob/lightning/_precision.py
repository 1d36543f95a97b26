"""What `Trainer(precision=...)` means for a JAX step.

| precision | parameters | computation |
|---|---|---|
| `"32-true"` | as the model has them | the same |
| `"bf16-mixed"` | as the model has them (float32) | the network in bfloat16 |
| `"bf16-true"` | bfloat16 | bfloat16 |
| `"64-true"` | float64 | float64 |

What `"bf16-mixed"` lowers is the whole loss of a `GradientDescent`, and of a method of
`jaxprob.bnn` the network alone: likelihood, prior and divergence, which are sums over
all weights and all data, stay in float32, and so do posterior and predictive.

float16 needs its loss scaled to keep small gradients from vanishing, and is refused. So
is low precision for HMC, whose acceptance step looks at differences of log densities.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from .._learner import AbstractLearner, GradientDescent
from .._types import Info, Loss, Model, PRNGKey, State
from ..bnn import HMC, NUTS, LogJoint

_STORED = {"bf16-true": jnp.bfloat16, "64-true": jnp.float64}
_KNOWN = ("32-true", "bf16-mixed", *_STORED)


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
    if precision in ("bf16-mixed", "bf16-true"):
        _refuse_hmc(learner, precision)
    if precision == "bf16-mixed":
        return _mixed(learner)
    if precision in _STORED:
        return CastBatches(learner, jnp.dtype(_STORED[precision]).name)
    return learner


def _mixed(learner):
    if isinstance(learner, GradientDescent):
        losses = (learner.loss, learner.evaluation_loss)
        low = tuple(None if loss is None else LowPrecisionLoss(loss) for loss in losses)
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
        return eqx.tree_at(lambda it: it.apply, node, LowPrecisionApply(node.apply))

    low = jax.tree.map(lower, learner, is_leaf=lambda node: isinstance(node, LogJoint))
    if not joints:
        raise ValueError(
            f"Trainer(precision='bf16-mixed'): {type(learner).__name__} has neither a "
            "loss nor a LogJoint whose network could run in bfloat16. Use '32-true' or "
            "'bf16-true'"
        )
    return low


def _refuse_hmc(learner, precision):
    def accepts(node):
        return isinstance(node, HMC | NUTS)

    if any(map(accepts, jax.tree.leaves(learner, is_leaf=accepts))):
        raise ValueError(
            f"Trainer(precision={precision!r}): Hamiltonian Monte Carlo accepts or "
            "rejects by differences of log densities, which bfloat16 rounds away. Use "
            "'32-true' or '64-true'"
        )


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """All real floating-point arrays of a tree in another dtype."""

    def one(leaf):
        real = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(one, tree)


def for_prediction(learner: AbstractLearner, tree: PyTree) -> PyTree:
    """A posterior, or inputs, in the precision of predictions.

    It is that of training, but never less than float32: quantiles need it.
    """
    if not isinstance(learner, CastBatches):
        return tree
    wide = jnp.finfo(learner.dtype).bits >= 32
    return cast(tree, learner.dtype if wide else jnp.float32)


class LowPrecisionLoss(eqx.Module):
    """A loss computed in bfloat16 of parameters that stay as they are.

    The cast is inside what is differentiated, so gradients arrive in float32 and the
    optimiser's small updates are not rounded away.
    """

    loss: Loss

    def __call__(self, model: Model, batch: PyTree, *, key: PRNGKey) -> Any:
        low = (cast(model, jnp.bfloat16), cast(batch, jnp.bfloat16))
        return cast(self.loss(*low, key=key), jnp.float32)


class LowPrecisionApply(eqx.Module):
    """How a `LogJoint` calls its network, in bfloat16 and back to float32."""

    apply: Callable[..., Any]

    def __call__(self, model: Model, x: PyTree, *, key: PRNGKey | None) -> Any:
        low = (cast(model, jnp.bfloat16), cast(x, jnp.bfloat16))
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
