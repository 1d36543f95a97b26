"""Validation of the integral of a noise rate, an argument of `VP`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .equations import CLEAN, CUT


def check_integral(vp: Any) -> None:
    """Check that `int_beta` is the integral of a rate, and `inverse` its inverse.

    **Raises:** `ValueError` or `TypeError` with the time and the value.
    """
    times = np.linspace(vp.t_min, vp.t_max, 129)

    def at(t):
        value = jnp.asarray(vp.int_beta(t))
        if value.shape != ():
            raise ValueError(
                f"int_beta(t) has shape {value.shape}: it is one number for one time"
            )
        back = t if vp.inverse is None else vp.inverse(value)
        return value, vp.beta(t), vp.int_beta(back)

    try:
        with jax.ensure_compile_time_eval():
            values = jax.vmap(at)(jnp.asarray(times, jnp.result_type(float)))
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            "int_beta or its inverse cannot be traced by JAX, and samplers and losses "
            "are compiled: write them with jax.numpy, without `if` on the time"
        ) from error
    if any(isinstance(value, Tracer) for value in values):
        return  # in training
    integral, rate, back = (np.asarray(value, np.float64) for value in values)
    if not np.isfinite(integral).all():
        raise ValueError(
            f"int_beta({times[~np.isfinite(integral)][0]:g}) is not finite"
        )
    if integral[0] < 0:
        raise ValueError(
            f"int_beta({vp.t_min:g}) = {integral[0]:g}: an integral of a positive rate "
            "from 0 on cannot be negative"
        )
    falls = np.append(np.diff(integral) <= 0, False)
    if falls.any():
        place = int(np.argmax(falls))
        raise ValueError(
            f"int_beta must increase, but int_beta({times[place]:g}) = "
            f"{integral[place]:g} and int_beta({times[place + 1]:g}) = "
            f"{integral[place + 1]:g}. It is the integral of the noise rate, not the "
            "rate itself."
        )
    if (rate < 0).any():
        place = int(np.argmax(rate < 0))
        raise ValueError(
            f"int_beta must increase, but its derivative at t={times[place]:g} is "
            f"{rate[place]:g}"
        )
    level = math.sqrt(math.expm1(min(integral[0], 50.0)))
    limit = CLEAN if vp.t_min == 0.0 else CUT
    if level > limit:
        raise ValueError(
            f"int_beta({vp.t_min:g}) = {integral[0]:g}, so the schedule begins at "
            f"noise level {level:.3g} and not at the data. int_beta is the integral of "
            "the rate from 0 on, not the rate: for beta(t) = 0.1 + 19.9 t write "
            "VP(lambda t: 0.1 * t + 9.95 * t**2, 1.0), or VP.linear(0.1, 20.0)"
        )
    wrong = ~(np.abs(back - integral) <= 1e-3 * integral[-1] + 1e-2 * integral)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f"inverse is not the inverse of int_beta: int_beta({times[place]:g}) = "
            f"{integral[place]:g}, and int_beta(inverse({integral[place]:g})) = "
            f"{back[place]:g}. Leave it out to have it found numerically"
        )
