"""Dependence of a function's results on its argument, read off its program.

It answers for every value of the argument at once, where a derivative at one point
would not. The likelihood's outputs are linked to unconstrained coordinates by it.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Literal
from jaxtyping import PyTree

CONSTANT, AFFINE, NONLINEAR = 0, 1, 2

# Affine in each argument: what they do to a sum of inputs they do to each.
_STRUCTURAL = {
    "add",
    "add_any",
    "broadcast_in_dim",
    "concatenate",
    "convert_element_type",
    "copy",
    "copy_p",
    "cumsum",
    "expand_dims",
    "neg",
    "pad",
    "reduce_sum",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "stack",
    "sub",
    "transpose",
}
_PRODUCTS = {"mul", "dot_general"}
_FIRST_ONLY = {"div", "gather", "dynamic_slice"}


def depends(function: Callable[..., PyTree], example: Any) -> PyTree:
    """Return the tree of `function`'s result with a bool for each number.

    An upper bound: a product with a zero still depends on its factor.
    """
    return jax.tree.map(lambda level: level > CONSTANT, levels(function, example))


def levels(function: Callable[..., PyTree], example: Any) -> PyTree[int]:
    """Return for each number of the result `CONSTANT`, `AFFINE` or `NONLINEAR`.

    Affine inside bounds, as of a clipped probability, counts as affine. Read off the
    program, so that the values need not be known.
    """
    tree: list[Any] = []

    def leaves(example):
        result, structure = jax.tree.flatten(function(example))
        tree.append(structure)
        return result

    closed = jax.make_jaxpr(leaves)(example)
    inputs = [AFFINE] * len(closed.jaxpr.invars)
    return jax.tree.unflatten(tree[-1], _walk(closed.jaxpr, inputs))


def _walk(jaxpr, inputs):
    known: dict[Any, int] = dict(zip(jaxpr.invars, inputs, strict=True))

    def level(var):
        return CONSTANT if isinstance(var, Literal) else known.get(var, CONSTANT)

    for eqn in jaxpr.eqns:
        own = [level(var) for var in eqn.invars]
        for var, out in zip(eqn.outvars, _outputs(eqn, own), strict=True):
            known[var] = out
    return [level(var) for var in jaxpr.outvars]


def _outputs(eqn, own):
    num, highest = len(eqn.outvars), max(own, default=CONSTANT)
    if highest == CONSTANT:
        return [CONSTANT] * num
    name = eqn.primitive.name
    moving = [index for index, level in enumerate(own) if level]
    inner = eqn.params.get("jaxpr") or eqn.params.get("call_jaxpr")
    if eqn.params.get("name") == "clip" and moving == [0]:
        return [highest] * num
    if name in ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"):
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(own):
            return _walk(inner, own)
    affine = (
        name in _STRUCTURAL
        or (name == "clamp" and moving == [1])
        or (name in _PRODUCTS and len(moving) == 1)
        or (name in _FIRST_ONLY and moving == [0])
        or (name == "select_n" and 0 not in moving)
    )
    return [highest if affine else NONLINEAR] * num
