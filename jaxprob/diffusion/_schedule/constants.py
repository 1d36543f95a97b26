"""Schedules with arrays in them, as constants of a program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._types import Model
from .schedule import AbstractSchedule


class _Constant:
    """An array that is hashed by its value, so that jit can take it as static."""

    def __init__(self, array: Array | np.ndarray | np.generic):
        self.array = np.asarray(array)
        self._value = (self.array.shape, self.array.dtype.str, self.array.tobytes())

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Constant) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


def hold_schedules(model: Model) -> Model:
    """Return the model with the arrays of its schedules static, for `eqx.filter_jit`.

    Noise levels are chosen on the host, so a sampler's program must know them. Each
    value of a trained schedule compiles another program. A schedule of Python numbers
    has no arrays, and nothing changes.
    """

    def hold(leaf):
        traced = isinstance(leaf, jax.Array | np.ndarray | np.generic)
        return _Constant(leaf) if traced else leaf

    return _in_schedules(hold, model)


def free_schedules(model: Model) -> Model:
    """Return the model that `hold_schedules` was given, inside the program."""
    # Inside jit `jnp.asarray` gives a tracer, but levels need concrete arrays.
    with jax.ensure_compile_time_eval():
        return _in_schedules(
            lambda leaf: jnp.asarray(leaf.array) if _is_constant(leaf) else leaf, model
        )


def _is_constant(leaf):
    return isinstance(leaf, _Constant)


def _in_schedules(change, model):
    def one(node):
        if not isinstance(node, AbstractSchedule):
            return node
        return jax.tree.map(change, node)

    return jax.tree.map(
        one, model, is_leaf=lambda node: isinstance(node, AbstractSchedule)
    )
