"""Arguments of a distribution with their constraints, through all wrappers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool
from numpyro.distributions import constraints

ROUNDING = 1e-5


class Argument(NamedTuple):
    """One argument of a distribution."""

    owner: str
    name: str
    constraint: Any
    value: Any


REAL = (type(constraints.real), type(constraints.real_vector))


def arguments(p: Any) -> Iterator[Argument]:
    """Yield the arguments of a distribution and of those inside of it.

    Wrappers, mixtures and classes of the user have their parts as attributes.
    """
    known, own = getattr(p, "arg_constraints", {}), vars(p)
    given = [name for name in known if name in own]
    for name in given:
        if hasattr(own[name], "dtype"):
            value = jnp.asarray(own[name])
            yield Argument(type(p).__name__, name, known[name], value)
    for name, value in own.items():
        # A private part is computed from the arguments that were yielded above, except
        # in a negative binomial distribution, whose mean is only there.
        if name.startswith("_") and known and len(given) == len(known):
            continue
        for part in value if isinstance(value, list | tuple) else (value,):
            if isinstance(part, dist.Distribution):
                yield from arguments(part)
            affine = isinstance(part, dist.transforms.AffineTransform)
            if affine and hasattr(part.scale, "dtype"):
                positive = constraints.positive
                yield Argument("AffineTransform", "scale", positive, part.scale)


def is_real(constraint: Any) -> bool:
    """Return whether any real number satisfies the constraint."""
    return isinstance(elementwise(constraint), REAL)


def elementwise(constraint: Any) -> Any:
    """Return the constraint of each entry, where entries are independent."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


def violates(constraint: Any, value: Array) -> Bool[Array, ""]:
    """Return whether a value breaks its constraint by more than rounding.

    The bound is allowed, because exponentials and softmaxes underflow to it.
    """
    kind = elementwise(constraint)
    wrong = jnp.any(jnp.isnan(value))
    if isinstance(kind, REAL):
        return wrong
    if isinstance(kind, type(constraints.simplex)):
        away = jnp.abs(jnp.sum(value, -1) - 1.0) > 100 * ROUNDING
        return wrong | jnp.any(value < -ROUNDING) | jnp.any(away)
    low, high = (getattr(kind, f"{end}_bound", None) for end in ("lower", "upper"))
    if low is None and high is None:
        return wrong | ~jnp.all(constraint(value))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        if low is not None:
            wrong = wrong | jnp.any(value < low - ROUNDING * jnp.abs(low))
        if high is not None:
            wrong = wrong | jnp.any(value > high + ROUNDING * jnp.abs(high))
    return wrong
