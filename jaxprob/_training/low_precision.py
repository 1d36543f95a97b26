"""Computing in fewer bits than the parameters have."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from .._types import Loss, Model, PRNGKey
from .call_loss import loss_output


def cast(tree: PyTree, dtype: DTypeLike) -> PyTree:
    """All real floating-point arrays of a tree in another dtype."""

    def one(leaf):
        real = hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(one, tree)


class LowPrecisionLoss(eqx.Module):
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
        """What the loss has to say of the data, if it has a method `check`."""
        look = getattr(self.loss, "check", None)
        if look is not None:
            look(model, data)

    def __call__(
        self, model: Model, batch: PyTree, *, key: PRNGKey, step: Any = None
    ) -> Any:
        low = (cast(model, self.dtype), cast(batch, self.dtype))
        return cast(loss_output(self.loss, *low, key=key, step=step), jnp.float32)
