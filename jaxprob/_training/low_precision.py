"""Computation in fewer bits than the parameters have."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from .._types import Loss, Model, PRNGKey
from .call_loss import AbstractCheckedLoss, check_by_loss, loss_output


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """Return a tree with all real floating-point arrays in another dtype."""

    def one(leaf):
        real = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(one, tree)


class LowPrecisionLoss(AbstractCheckedLoss):
    """A loss computed in few bits, of parameters that stay in float32.

    The cast is inside what is differentiated, so gradients arrive in float32 and the
    optimiser's small updates are not rounded away.

    ```python
    loss = jaxprob.LowPrecisionLoss(loss)  # in bfloat16
    ```

    Reference: *Mixed Precision Training*, Micikevicius et al., 2018,
    https://arxiv.org/abs/1710.03740.

    **Arguments:**

    - `loss`: as for `GradientDescent`.
    - `dtype`: `"bfloat16"`; or `"float16"`, which has three bits more and a narrow
        range: give the optimiser to `jaxprob.dynamic_loss_scale` then.
    """

    loss: Loss
    dtype: str = eqx.field(static=True)

    def __init__(self, loss: Loss, dtype: DTypeLike = "bfloat16"):
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(f"dtype={dtype}: give a floating-point type")
        self.loss = loss
        self.dtype = jnp.dtype(dtype).name

    def check(self, model: Model, data: PyTree) -> None:
        """Check a data set by the loss inside."""
        check_by_loss(self.loss, model, data)

    @property
    def __signature__(self) -> inspect.Signature:
        """Signature of the loss inside, which may have `step` and `epoch`."""
        return inspect.signature(self.loss)

    def __call__(
        self, model: Model, batch: PyTree, *, key: PRNGKey, **counts: Any
    ) -> Any:
        low = (cast(model, self.dtype), cast(batch, self.dtype))
        return cast(loss_output(self.loss, *low, key=key, **counts), jnp.float32)


class LowPrecisionApply(eqx.Module):
    """A call of a network in few bits, whose output is float32.

    **Arguments:**

    - `apply`: `apply(model, x, key=key)`, as in `jaxprob.bnn.LogJoint`.
    - `dtype`: name of the dtype.
    """

    apply: Callable[..., Any]
    dtype: str = eqx.field(static=True)

    def __call__(self, model: Model, x: PyTree, *, key: PRNGKey | None) -> Any:
        low = (cast(model, self.dtype), cast(x, self.dtype))
        return cast(self.apply(*low, key=key), jnp.float32)
