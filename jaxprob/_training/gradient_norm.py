"""The norm of the gradient as a metric of each step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from ..tree._single import single
from .optimizer_update import accepts_extra

NAME = "grad_norm"


class LoggedNormState(NamedTuple):
    """State of `log_gradient_norm`: that of the optimiser inside."""

    inner: PyTree


def log_gradient_norm(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return the optimiser, with the norm of each gradient among the metrics.

    ```python
    learner = jaxprob.GradientDescent(loss, jaxprob.log_gradient_norm(optimizer))
    ```

    `GradientDescent`, and each method of `jaxprob.bnn` that is made of it, then has a
    metric `"grad_norm"` in training: the Euclidean norm over all trained leaves, of the
    gradient of one batch, before clipping and without the factor of a loss scale. In
    Lightning it is logged as `train_grad_norm_step` and `train_grad_norm`.
    """
    inner = accepts_extra(optimizer)

    def init(params):
        return LoggedNormState(inner.init(params))

    def update(updates, state, params=None, **extra):
        updates, new = inner.update(updates, state.inner, params, **extra)
        return updates, LoggedNormState(new)

    return optax.GradientTransformationExtraArgs(init, update)


def logs_norm(opt_state: PyTree) -> bool:
    """Return whether the norm of the gradient is to be a metric."""

    def is_logged(node):
        return isinstance(node, LoggedNormState)

    return any(map(is_logged, jax.tree.leaves(opt_state, is_leaf=is_logged)))


def with_norm(
    info: dict[str, Array], grads: PyTree, scale: Float[Array, ""] | None
) -> dict[str, Array]:
    """Return metrics with the norm of a gradient, which may be that of a scaled loss.

    The scale is divided out before the squares, which would overflow.

    **Raises:** `ValueError` if there is a metric of this name.
    """
    if NAME in info:
        raise ValueError(
            f"a metric is named {NAME!r}, which is the name of the norm that jaxprob."
            "log_gradient_norm adds: name it otherwise, such as 'my_norm'"
        )

    def squares(leaf: Any):
        leaf = single(jnp.abs(leaf))
        leaf = leaf if scale is None else leaf / scale.astype(leaf.dtype)
        return jnp.sum(leaf**2).astype(jnp.float32)

    total = sum(map(squares, jax.tree.leaves(grads)), jnp.zeros((), jnp.float32))
    return {**info, NAME: jnp.sqrt(total)}
