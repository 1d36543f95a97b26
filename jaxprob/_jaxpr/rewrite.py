"""A program of JAX with some of its equations changed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun


def rewritten(
    function: Callable[..., Any], rewrite: Callable[[Any], Any]
) -> Callable[..., Any]:
    """Return a function of arrays whose program is changed before it runs.

    **Arguments:**

    - `function`: `function(*trees) -> tree`, of arrays.
    - `rewrite`: `rewrite(jaxpr) -> jaxpr` with the same inputs and outputs.
    """

    def run(*args):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        closed = closed.replace(jaxpr=rewrite(closed.jaxpr))
        leaves = evaluated(closed, args)
        return jax.tree.unflatten(jax.tree.structure(shape), leaves)

    return run


def evaluated(program: ClosedJaxpr, args: Any) -> list[jax.Array]:
    """Return the outputs of a program, as arrays, for a tree of arguments.

    From JAX 0.12 on an output that is a constant comes back as a Python or NumPy
    number.
    """
    outputs = jaxpr_as_fun(program)(*jax.tree.leaves(args))
    return [out if isinstance(out, jax.Array) else jnp.asarray(out) for out in outputs]


def with_inner(equation: Any, rewrite: Callable[[Any], Any]) -> Any:
    """Return an equation with its inner programs (loops, branches, calls) changed."""

    def changed(value):
        if isinstance(value, ClosedJaxpr):
            return value.replace(jaxpr=rewrite(value.jaxpr))
        if isinstance(value, Jaxpr):
            return rewrite(value)
        if type(value) in (tuple, list):  # named tuples hold no programs
            return type(value)(map(changed, value))
        return value

    params = {name: changed(value) for name, value in equation.params.items()}
    return equation.replace(params=params)


def calling(equation: Any, function: Callable[..., Any]) -> Any:
    """Return an equation with the same operands and results that calls a function."""
    shapes = (v.aval for v in equation.invars)
    call = jax.make_jaxpr(jax.jit(function))(*shapes).eqns[0]
    return equation.replace(primitive=call.primitive, params=call.params)
