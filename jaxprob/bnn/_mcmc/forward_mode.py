"""Gradients by forward-mode differentiation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ScalarFunction = Callable[[Float[Array, " dim"]], Float[Array, ""]]


def forward_gradient(function: ScalarFunction) -> ScalarFunction:
    """Return a function whose `jax.grad` is computed by forward-mode differentiation.

    It costs one derivative for each of the `dim` inputs, side by side, and stores no
    intermediate values. Reverse mode has to store or recompute the states of a loop.

    **Arguments:**

    - `function`: of a vector; it is differentiated once.
    """

    @jax.custom_vjp
    def wrapped(vector):
        return function(vector)

    def forward(vector):
        def along(tangent):
            return jax.jvp(function, (vector,), (tangent,))

        basis = jnp.eye(vector.size, dtype=vector.dtype)
        return jax.vmap(along, out_axes=(None, 0))(basis)

    def backward(gradient, cotangent):
        return (cotangent * gradient,)

    wrapped.defvjp(forward, backward)
    return wrapped
