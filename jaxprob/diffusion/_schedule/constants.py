"""Schedules with arrays in them, as constants of a program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..._types import Model
from .schedule import AbstractSchedule


class _Constant:
    """An array that is hashed by its value, so that jit takes it for a static one."""

    def __init__(self, array: Array | np.ndarray | np.generic):
        self.array = np.asarray(array)
        self._told = (self.array.shape, self.array.dtype.str, self.array.tobytes())

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, _Constant) and self._told == other._told

    def __hash__(self) -> int:
        return hash(self._told)


def hold_schedules(model: Model) -> Model:
    """The model with the arrays of its schedules made static, for `eqx.filter_jit`.

    Noise levels are chosen on the host, so a program of a sampler has to know them. A
    schedule that was trained makes a program of its own; one of Python numbers has no
    arrays, and nothing changes.
    """

    def hold(leaf):
        traced = isinstance(leaf, jax.Array | np.ndarray | np.generic)
        return _Constant(leaf) if traced else leaf

    return _in_schedules(hold, model)


def free_schedules(model: Model) -> Model:
    """The inverse of `hold_schedules`, inside the program."""
    # Known arrays and no tracers, as all of `jnp` is inside jit.
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
