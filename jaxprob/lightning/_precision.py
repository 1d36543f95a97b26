"""What `Trainer(precision=...)` means for a JAX step.

| precision | parameters | computation |
|---|---|---|
| `"32-true"` | as the model has them | the same |
| `"bf16-mixed"` | as the model has them (float32) | loss and gradient in bfloat16 |
| `"bf16-true"` | bfloat16 | bfloat16 |
| `"64-true"` | float64 | float64 |

float16 needs its loss scaled to keep small gradients from vanishing, and is refused.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from .._learner import AbstractLearner
from .._types import Info, Loss, Model, PRNGKey, State

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
    """The learner with its step in a precision."""
    if precision == "bf16-mixed":
        loss = getattr(learner, "loss", None)
        if loss is None:
            raise ValueError(
                f"Trainer(precision='bf16-mixed'): {type(learner).__name__} has no "
                "loss of its own to run in bfloat16. Use '32-true' or 'bf16-true'"
            )
        return eqx.tree_at(lambda it: it.loss, learner, LowPrecisionLoss(loss))
    if precision in _STORED:
        return CastBatches(learner, jnp.dtype(_STORED[precision]).name)
    return learner


def cast_model(model: Model, precision: str) -> Model:
    """A model whose parameters are stored as a precision says."""
    return cast(model, _STORED[precision]) if precision in _STORED else model


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """All real floating-point arrays of a tree in another dtype."""

    def one(leaf):
        real = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(one, tree)


class LowPrecisionLoss(eqx.Module):
    """A loss computed in bfloat16 of parameters that stay as they are.

    The cast is inside what is differentiated, so gradients arrive in float32 and the
    optimiser's small updates are not rounded away.
    """

    loss: Loss

    def __call__(self, model: Model, batch: PyTree, *, key: PRNGKey) -> Any:
        low = (cast(model, jnp.bfloat16), cast(batch, jnp.bfloat16))
        return cast(self.loss(*low, key=key), jnp.float32)


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
