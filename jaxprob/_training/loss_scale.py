"""Dynamic loss scaling: what float16 needs so that small gradients do not vanish.

float16 has no number between 0 and 6e-8. The loss is multiplied by a large power of two
before it is differentiated, every cotangent with it, and the gradient is divided by it
in float32. What is too large then comes out as infinite or NaN: that step is left out
and the scale halved; after long without one it is doubled. bfloat16 has the exponents
of float32 and needs none of this.
"""

from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .non_finite import finite_leaves
from .optimizer_update import accepts_extra

Tree = TypeVar("Tree", bound=Any)


class LossScaleState(NamedTuple):
    """The state of an optimiser made by `dynamic_loss_scale`.

    **Fields:**

    - `inner`: of the optimiser inside.
    - `scale`: what the next loss is to be multiplied by.
    - `good_steps`: finite gradients in a row, since the scale last changed.
    - `finite`: whether the last gradient was finite, so that its step was made.
    """

    inner: PyTree
    scale: Float[Array, ""]
    good_steps: Int[Array, ""]
    finite: Bool[Array, ""]


def dynamic_loss_scale(
    optimizer: optax.GradientTransformation,
    *,
    initial: float = 2.0**15,
    growth_interval: int = 2000,
    factor: float = 2.0,
    minimum: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser for gradients of a scaled loss, which keeps the scale.

    ```python
    optimizer = jaxprob.dynamic_loss_scale(optax.adam(1e-3))
    learner = jaxprob.GradientDescent(
        jaxprob.LowPrecisionLoss(loss, "float16"), optimizer
    )
    ```

    `GradientDescent`, and so every method of `jaxprob.bnn` that is made of it, scales
    its loss when it sees such an optimiser; in a step that is left out nothing changes
    but the scale, running statistics and averages included. It stands outermost:
    clipping inside then sees the true gradient. In a loop that you write:

    ```python
    def scaled(params):
        return opt_state.scale * objective(params).astype(jnp.float32)

    grads = jax.grad(scaled)(params)
    updates, opt_state = optimizer.update(
        grads, opt_state, params, scale=opt_state.scale
    )
    ```

    optax has `apply_if_finite`, which skips and does not scale; Flax has the same rule
    as here, for a loop that you write (`flax.training.dynamic_scale`).

    Reference: *Mixed Precision Training*, Micikevicius et al., 2018,
    https://arxiv.org/abs/1710.03740, section 3.2.

    **Arguments:**

    - `optimizer`: what updates the parameters.
    - `initial`: the scale to start with. By default the largest power of two that
        float16 holds.
    - `growth_interval`: finite gradients in a row after which the scale grows.
    - `factor`: by how much it grows then, and shrinks at a gradient that is not finite.
        A power of two, which changes no digit.
    - `minimum`: below it the scale does not shrink.

    **Raises:** `ValueError` for settings that could not work; `TypeError` from an
    update without the scale of its gradient.
    """
    if not 0.0 < minimum <= initial:
        raise ValueError(
            f"initial={initial}, minimum={minimum}: both are to be positive, and the "
            "scale starts no lower than its minimum"
        )
    if not factor > 1.0:
        raise ValueError(f"factor={factor}: it has to be above 1")
    if growth_interval < 1:
        raise ValueError(f"growth_interval={growth_interval}: at least one step")
    inner = accepts_extra(optimizer)

    def init(params):
        return LossScaleState(
            inner=inner.init(params),
            scale=jnp.asarray(initial, jnp.float32),
            good_steps=jnp.zeros((), jnp.int32),
            finite=jnp.asarray(True),
        )

    def update(updates, state, params=None, *, scale=None, **extra):
        if scale is None:
            raise TypeError(
                "dynamic_loss_scale: this gradient comes without the scale of its "
                "loss. It takes the gradient of opt_state.scale * loss, and "
                "update(..., scale=opt_state.scale); a method that does not take its "
                "gradient by GradientDescent cannot use it"
            )
        grads = jax.tree.map(lambda g: _divide(g, scale), updates)
        finite = all_finite(grads)
        if "grad" in extra:
            extra["grad"] = grads  # a line search goes along the true gradient
        updates, new = inner.update(grads, state.inner, params, **extra)
        updates = jax.tree.map(
            lambda u: jnp.where(finite, u, jnp.zeros((), u.dtype)), updates
        )
        good = jnp.where(finite, state.good_steps + 1, 0)
        grow = good >= growth_interval
        # At the largest number of its dtype the scale stays as it is.
        larger = scale * jnp.asarray(factor, scale.dtype)
        larger = jnp.where(jnp.isfinite(larger), larger, scale)
        smaller = jnp.maximum(scale / jnp.asarray(factor, scale.dtype), minimum)
        return updates, LossScaleState(
            inner=choose(finite, new, state.inner),
            scale=jnp.where(finite, jnp.where(grow, larger, scale), smaller),
            good_steps=jnp.where(grow, 0, good).astype(jnp.int32),
            finite=finite,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _divide(grad, scale):
    """In float32 at least: in float16 what was saved would be lost again."""
    wide = jnp.promote_types(grad.dtype, jnp.float32)
    return (grad.astype(wide) / scale.astype(wide)).astype(grad.dtype)


def scaled(value: Float[Array, ""], scale: Float[Array, ""] | None) -> Any:
    """Return what is differentiated: the loss, or its multiple in float32."""
    return value if scale is None else value.astype(scale.dtype) * scale


def unless_left_out(new: Tree, old: Tree) -> Tree:
    """Return the state after a step; if that was left out, only the scale is new."""
    opt_state = new.opt_state
    chosen = choose(
        opt_state.finite, new, eqx.tree_at(lambda s: s.opt_state, old, opt_state)
    )
    return eqx.tree_at(lambda s: s.opt_state, chosen, opt_state)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Return whether all floating-point arrays of a tree are finite."""
    return jnp.all(finite_leaves(eqx.filter(tree, eqx.is_array)))


def choose(condition: Bool[Array, ""], new: Tree, old: Tree) -> Tree:
    """Return `new` where the condition holds, else `old`, in every array."""

    def one(new, old):
        return jnp.where(condition, new, old) if eqx.is_array(new) else new

    return jax.tree.map(one, new, old)


def loss_scale(opt_state: PyTree) -> Float[Array, ""] | None:
    """Return the scale that an optimiser asks for, or `None`.

    **Raises:** `ValueError` where it is not outermost.
    """
    if isinstance(opt_state, LossScaleState):
        return opt_state.scale
    nodes: list[Any] = jax.tree.leaves(
        opt_state, is_leaf=lambda node: isinstance(node, LossScaleState)
    )
    if any(isinstance(node, LossScaleState) for node in nodes):
        raise ValueError(
            "dynamic_loss_scale stands inside another transformation, which would see "
            "scaled gradients: write dynamic_loss_scale(optax.chain(...))"
        )
    return None
