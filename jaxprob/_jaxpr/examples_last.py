"""`jax.vmap` with the examples along the last axis, for models that map vectors.

`vmap` moves the examples to the front again after each bias. So the activations of a
perceptron change sides between products, and under a second `vmap`, over the members
of an ensemble, XLA on CPU has no fast call for half of those products, forwards and
backwards. With the examples last, W x is W X and its derivatives are plain products as
well.

A `jaxprob.fit` of an ensemble of eight perceptrons takes 1.2 to 1.3 times less
processor time; MAP and mean-field variational inference take the same
(`python -m benchmarks.examples_last`, on a CPU). `JAXPROB_PLAIN=examples_last` uses
`jax.vmap` instead.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, DropVar, Literal, jaxprs_in_params

from .equation import equation_as_function, results, without_literals
from .switches import is_on

_ELEMENTWISE = {"add", "add_any", "sub", "mul", "div", "max", "min", "pow", "rem"}
_ELEMENTWISE |= {"select_n", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor"}

# What sees all examples at once, and has one result for them: the conditions of
# `eqx.error_if`, which taken for one of each example would raise whether it holds or
# not, and batching rules of the user's.
_ACROSS = {"unvmap_any", "unvmap_all", "unvmap_max", "custom_vmap_call"}

# Of a matrix, for each example: products of much wider ones are faster as `vmap` has
# them.
MAX_WIDTH = 4


def vmap_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `jax.vmap(function)`, with the examples last where that is faster.

    The values are the same up to rounding. The program of one example decides: on a
    CPU, if all its products are of a matrix and a vector, and none is in a loop.

    **Arguments:**

    - `function`: `function(*trees) -> tree`, of arrays of one example. What else it
        reads, such as weights, is the same for all.

    **Returns:** the function of arrays with a leading axis of examples.
    """

    def mapped(*args):
        if not is_on("examples_last") or jax.default_backend() != "cpu":
            return jax.vmap(function)(*args)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), args)
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*one)
        leaves = jax.tree.leaves(args)
        size = leaves[0].shape[0]
        if closed.effects or not _is_faster(closed, size):
            return jax.vmap(function)(*args)
        rows = [(jnp.moveaxis(leaf, 0, -1), True) for leaf in leaves]
        constants = [(const, False) for const in closed.consts]
        outs = _run(closed.jaxpr, constants, rows, size)
        outs = [jnp.moveaxis(_spread(out, size), -1, 0) for out in outs]
        return jax.tree.unflatten(jax.tree.structure(shape), outs)

    return mapped


def _is_faster(program: ClosedJaxpr, size: int) -> bool:
    products = _products(program.jaxpr, list(map(id, program.consts)))
    if not products or not all(map(_is_of_vector, products)):
        return False
    widths = [width for eqn in products for v in eqn.invars for width in v.aval.shape]
    return max(widths) <= MAX_WIDTH * size


def _products(jaxpr, constants):
    """All products and convolutions; `None` for what `_run` cannot take apart."""
    found = []
    for eqn in jaxpr.eqns:
        subs = jaxprs_in_params(eqn.params)
        inner = [product for sub in subs for product in _products(sub, constants)]
        found += inner if _is_jit(eqn) else [None] * len(inner)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            found.append(eqn)
        if eqn.primitive.name in _ACROSS or not _is_closed(eqn, constants):
            found.append(None)
    return found


def _is_closed(eqn, constants):
    """True if a call's custom derivative reads nothing that the model made.

    A constant made beside it is gone once the model's program is known.
    """
    if eqn.primitive.name not in ("custom_jvp_call", "custom_vjp_call"):
        return True

    def pull(*args):
        outs, back = jax.vjp(equation_as_function(eqn), *args)
        return back(jax.tree.map(_zero_tangent, outs))

    inputs = [var.aval for var in eqn.invars if not isinstance(var, Literal)]
    try:
        consts = jax.make_jaxpr(pull)(*inputs).consts
    except Exception:  # of many kinds, some private: `vmap` will say what is wrong
        return False
    return all(id(c) in constants for c in consts if isinstance(c, Tracer))


def _zero_tangent(value):
    if _is_inexact(value):
        return jnp.zeros_like(value)
    return np.zeros(value.shape, jax.dtypes.float0)


def _is_of_vector(eqn):
    if eqn is None or eqn.primitive.name != "dot_general":
        return False
    _, shared = eqn.params["dimension_numbers"]
    ranks = [v.aval.ndim for v in eqn.invars]
    return not shared[0] and min(ranks) == 1


def _run(jaxpr, constants, args, size):
    """Evaluate the program of one example for all; values are `(array, mapped)`."""
    env = dict(zip(jaxpr.constvars, constants, strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(var):
        return (var.val, False) if isinstance(var, Literal) else env[var]

    for eqn in jaxpr.eqns:
        operands = [read(var) for var in eqn.invars]
        if any(mapped for _, mapped in operands):
            outs = [(out, True) for out in _mapped_equation(eqn, operands, size)]
        else:
            outs = [
                (out, False)
                for out in equation_as_function(eqn)(*_arrays(eqn, operands))
            ]
        env.update(zip(results(eqn), outs, strict=True))
    return [read(var) for var in jaxpr.outvars]


def _mapped_equation(eqn, operands, size):
    if _is_jit(eqn):
        closed = eqn.params["jaxpr"]
        constants = [(const, False) for const in closed.consts]
        outs = _run(closed.jaxpr, constants, operands, size)
        pairs = zip(eqn.outvars, outs, strict=True)
        return [
            _spread(out, size) for var, out in pairs if not isinstance(var, DropVar)
        ]
    if eqn.primitive.name == "dot_general":
        out = _product(eqn, operands)
        if out is not None:
            return [out]
    if eqn.primitive.name in _ELEMENTWISE:
        # `vmap` leaves the axis where it is if all operands have it there.
        operands = [
            (_spread((a, mapped), size), True) if jnp.ndim(a) else (a, mapped)
            for a, mapped in operands
        ]
    axes = tuple(
        -1 if mapped else None
        for var, (_, mapped) in zip(eqn.invars, operands, strict=True)
        if not isinstance(var, Literal)
    )
    arrays = _arrays(eqn, operands)
    if eqn.primitive.name == "custom_jvp_call" and all(map(_is_inexact, arrays)):
        return _with_own_rule(eqn, axes, size)(*arrays)
    return jax.vmap(equation_as_function(eqn), axes, -1)(*arrays)


def _with_own_rule(eqn, axes, size):
    """A call with a custom derivative, such as relu's, which is mapped as well."""
    one = equation_as_function(eqn)

    @jax.custom_jvp
    def call(*arrays):
        return jax.vmap(one, axes, -1)(*arrays)

    @call.defjvp
    def derivative(arrays, tangents):
        values = [v.aval for v in eqn.invars if not isinstance(v, Literal)]
        closed = jax.make_jaxpr(lambda *moves: jax.jvp(one, *moves))(values, values)
        constants = [(const, False) for const in closed.consts]
        moving = [axis is not None for axis in axes]
        args = [*zip(arrays, moving, strict=True), *zip(tangents, moving, strict=True)]
        outs = [_spread(out, size) for out in _run(closed.jaxpr, constants, args, size)]
        half = len(outs) // 2
        return outs[:half], outs[half:]

    return call


def _product(eqn, operands):
    """W X, if one factor is a vector of each example and all share the other."""
    (a, a_mapped), (b, b_mapped) = operands
    (a_axes, b_axes), (shared, _) = eqn.params["dimension_numbers"]
    if shared or not a_axes:  # an outer product has the axes of both, in their order
        return None
    if b_mapped and not a_mapped and b.ndim == 2:
        weight, rows, axes = a, b, (a_axes, b_axes)
    elif a_mapped and not b_mapped and a.ndim == 2:
        weight, rows, axes = b, a, (b_axes, a_axes)
    else:
        return None
    params = {**eqn.params, "dimension_numbers": (axes, ((), ()))}
    return eqn.primitive.bind(weight, rows, **params)


def _arrays(eqn, pairs):
    return without_literals(eqn, [array for array, _ in pairs])


def _spread(operand, size):
    """The value of each example, along the last axis."""
    value, mapped = operand
    if mapped:
        return value
    value = jnp.asarray(value)
    return jax.lax.broadcast_in_dim(value, (*value.shape, size), range(value.ndim))


def _is_inexact(array):
    return jnp.issubdtype(jnp.result_type(array), jnp.inexact)


def _is_jit(eqn):
    return eqn.primitive.name in ("jit", "pjit")
