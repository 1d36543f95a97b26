"""Convolutions that stay fast inside of loops on a CPU.

XLA's CPU compiler has a fast library call for convolutions whose batch comes first and
whose channels come last. It turns others into that form where they stand in the main
body of a program, and leaves them as they are inside of loops and branches, where they
then run as naive code, ten times slower and more. Turned before XLA sees them they cost
in a loop what they cost outside (`python -m benchmarks.convolutions`), with equal bits.
`JAXPROB_PLAIN=convolutions` leaves them as they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxprs_in_params
from jax.lax import ConvDimensionNumbers

from .rewrite import calling, rewritten, with_inner
from .switches import is_on


def with_fast_convolutions(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function of arrays with convolutions that a CPU's loops run fast.

    On other devices it is the function itself.
    """
    if not is_on("convolutions") or jax.default_backend() != "cpu":
        return function
    return rewritten(function, _rewrite)


def has_convolution(jaxpr: Any) -> bool:
    """Return whether a jaxpr holds a convolution, at any depth."""
    return any(
        _is_convolution(eqn) or any(map(has_convolution, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


def _rewrite(jaxpr):
    if not has_convolution(jaxpr):
        return jaxpr
    return jaxpr.replace(
        eqns=[
            calling(eqn, _channels_last(eqn.params))
            if _is_convolution(eqn)
            else with_inner(eqn, _rewrite)
            for eqn in jaxpr.eqns
        ]
    )


def _is_convolution(eqn):
    return eqn.primitive.name == "conv_general_dilated"


def _channels_last(params):
    """The convolution of an equation, with its operands turned and turned back."""
    spec: Any = params["dimension_numbers"]
    space = tuple(range(1, len(spec.lhs_spec) - 1))
    data = (0, len(space) + 1, *space)
    kernel = (len(space) + 1, len(space), *(axis - 1 for axis in space))
    numbers = ConvDimensionNumbers(data, kernel, data)
    shaped = ("dimension_numbers", "lhs_shape", "rhs_shape")
    settings = {k: v for k, v in params.items() if k not in shaped}

    def turned(lhs, rhs):
        batch, channels, *axes = spec.lhs_spec
        lhs = jnp.transpose(lhs, (batch, *axes, channels))
        out_channels, in_channels, *axes = spec.rhs_spec
        rhs = jnp.transpose(rhs, (*axes, in_channels, out_channels))
        out = jax.lax.conv_general_dilated_p.bind(
            lhs, rhs, dimension_numbers=numbers, **settings
        )
        batch, channels, *axes = spec.out_spec
        return jnp.transpose(out, np.argsort((batch, *axes, channels)).tolist())

    return turned
