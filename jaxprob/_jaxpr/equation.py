"""One equation of a program as a function."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import (
    ClosedJaxpr,
    DebugInfo,
    DropVar,
    Jaxpr,
    Literal,
    jaxpr_as_fun,
)


def equation_as_function(eqn: Any) -> Callable[..., list[jax.Array]]:
    """Return the equation as a function of the operands that are no literals."""
    inputs = [var for var in eqn.invars if not isinstance(var, Literal)]
    outputs = results(eqn)
    names = (("",) * len(inputs), ("",) * len(outputs))
    about = DebugInfo("equation", eqn.primitive.name, *names)
    jaxpr = Jaxpr((), inputs, outputs, [eqn], debug_info=about)
    return jaxpr_as_fun(ClosedJaxpr(jaxpr, ()))


def without_literals(eqn: Any, values: Sequence[Any]) -> list[Any]:
    """Return those of one value for each operand that belong to no literal."""
    pairs = zip(eqn.invars, values, strict=True)
    return [value for var, value in pairs if not isinstance(var, Literal)]


def results(eqn: Any) -> list[Any]:
    """Return the variables of an equation that something may read."""
    return [var for var in eqn.outvars if not isinstance(var, DropVar)]


def loop_operands(eqn: Any) -> tuple[int, int]:
    """Numbers of constants and of carried values among the operands of a `scan`."""
    if "num_consts" in eqn.params:
        return eqn.params["num_consts"], eqn.params["num_carry"]
    # JAX 0.12 keeps the operands as a tree (constants, carried values, slices).
    constants, carried, _ = eqn.params["ft_in"].unpack()
    return len(constants), len(carried)
