"""Supports with an edge, as hashable values that a file can hold."""

import functools
from typing import Any, TypeAlias

import jax
import numpy as np
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.transforms import Transform

from .scale import is_traced

Edge: TypeAlias = tuple
"""A constraint of numpyro as (class name, fields, settings), each pair (name, value).

A tree's structure has to be hashable, and the bounds of a support must be neither
trained nor averaged, so that they are no arrays here.
"""


def edge_of(constraint: Any) -> Edge:
    """Return a constraint as a hashable value.

    **Raises:** `TypeError` for a bound that is traced, whose value is not known.
    """
    data, (names, settings) = constraint.tree_flatten()
    fields = tuple(zip(names, map(_frozen, data), strict=True))
    return type(constraint).__name__, fields, tuple(settings.items())


def constraint_of(edge: Edge) -> Any:
    """Return the constraint of numpyro."""
    name, fields, settings = edge
    cls = getattr(constraints, name)
    values = tuple(_thawed(value) for _, value in fields)
    names = tuple(name for name, _ in fields)
    return cls.tree_unflatten((names, dict(settings)), values)


@functools.lru_cache(maxsize=512)
def bijection(edge: Edge) -> Transform:
    """Return the map from all real numbers onto a support, numpyro's `biject_to`."""
    with jax.ensure_compile_time_eval():
        return biject_to(constraint_of(edge))


def _frozen(value):
    if isinstance(value, constraints.Constraint):
        return "constraint", edge_of(value)
    if is_traced(value):
        raise TypeError(
            "a bound of the prior's support is traced: call `init` outside of jit, or "
            "give the bound as a Python number"
        )
    if np.ndim(value) == 0:
        return float(value)
    return "array", _tuples(np.asarray(value, float).tolist())


def _thawed(value):
    if isinstance(value, tuple):
        kind, inner = value
        return constraint_of(inner) if kind == "constraint" else np.asarray(inner)
    return value


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
