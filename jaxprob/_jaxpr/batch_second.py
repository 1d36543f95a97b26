"""Functions whose `vmap` is one call with the examples along the second axis."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .switches import is_on


def batch_second(fun: Callable, num_rows: int, name: str) -> Callable:
    """Return a function of one example whose `vmap` is `fun` of all examples at once.

    `vmap` puts the new axis first and moves it there after most operations, so a
    function that mixes over both axes of a matrix is transposed again and again. With
    the examples in the middle, (a, examples, b), a product from the left and one from
    the right are both plain products of matrices without a copy. A training step of the
    Mixer is 1.7 times as fast (`python -m benchmarks.mixer`). With
    `JAXPROB_PLAIN=batch_second` the function goes through JAX's own `vmap`.

    Nested `vmap`s become one axis. Under `vmap` of a gradient, and with batched weights
    (an ensemble), JAX's usual rules apply, which are correct but slower.

    **Arguments:**

    - `fun`: `fun(*rows, *weights)` with rows of shape (a, examples, b).
    - `num_rows`: number of its arguments that are rows.
    - `name`: the operation's name in printed programs.

    **Returns:** the function of rows of shape (a, b) and weights.
    """
    primitive = Primitive(name)

    def run(*operands):
        rows, weights = operands[:num_rows], operands[num_rows:]
        if rows[0].ndim == 3:
            return fun(*rows, *weights)
        rows = [jax.lax.expand_dims(row, (1,)) for row in rows]
        return jax.lax.squeeze(fun(*rows, *weights), (1,))

    def shape(*operands):
        out = jax.eval_shape(run, *operands)
        return ShapedArray(out.shape, out.dtype)

    def derivative(primals, tangents):
        moving = [not isinstance(tangent, ad.Zero) for tangent in tangents]

        def of_moving(*moved):
            rest = iter(moved)
            return run(
                *(next(rest) if m else p for m, p in zip(moving, primals, strict=True))
            )

        return jax.jvp(of_moving, _only(primals, moving), _only(tangents, moving))

    def batched(operands, dims):
        rows, weights = operands[:num_rows], operands[num_rows:]
        if any(dim is not None for dim in dims[num_rows:]):
            return jax.vmap(run, in_axes=tuple(dims))(*operands), 0
        size = next(
            x.shape[d] for x, d in zip(rows, dims, strict=False) if d is not None
        )

        def second(row, dim):
            if dim is not None:
                return jnp.moveaxis(row, dim, 1)
            row = jax.lax.expand_dims(row, (1,))
            return jnp.broadcast_to(row, (row.shape[0], size, *row.shape[2:]))

        rows = [second(row, dim) for row, dim in zip(rows, dims, strict=False)]
        inner = rows[0].shape[2:-1]  # of an inner vmap, if there is one
        rows = [row.reshape(row.shape[0], -1, row.shape[-1]) for row in rows]
        out = primitive.bind(*rows, *weights)
        return out.reshape(out.shape[0], size, *inner, out.shape[-1]), 1

    primitive.def_impl(jax.jit(run))
    primitive.def_abstract_eval(shape)
    ad.primitive_jvps[primitive] = derivative
    batching.primitive_batchers[primitive] = batched
    mlir.register_lowering(primitive, mlir.lower_fun(run, multiple_results=False))

    def call(*operands):
        if not is_on("batch_second"):
            return run(*operands)
        return primitive.bind(*operands)

    return call


def _only(values, chosen):
    return tuple(value for value, c in zip(values, chosen, strict=True) if c)
