"""Concatenation of small arrays, so that one kernel computes all of them.

On a CPU a kernel takes about a microsecond to start, and the bias of a small layer
takes less than that to compute.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

SMALL = 4096
"""Entries beyond which a copy costs more than the start of a kernel."""


def group_small(leaves: Iterable[Any]) -> list[list[int]]:
    """Return positions by group: all small leaves of a dtype, each large leaf."""
    groups: dict[Any, list[int]] = {}
    for position, leaf in enumerate(leaves):
        small = math.prod(leaf.shape) <= SMALL
        groups.setdefault(leaf.dtype if small else position, []).append(position)
    return list(groups.values())


def join(arrays: list[Array]) -> Shaped[Array, "..."]:
    """Return arrays end to end as one vector; a single array unchanged."""
    if len(arrays) == 1:
        return arrays[0]
    return jnp.concatenate([jnp.ravel(array) for array in arrays])


def split(joined: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    """Return the arrays that were joined."""
    if len(shapes) == 1:
        return [joined]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    parts = jnp.split(joined, ends[:-1])
    return [jnp.reshape(a, shape) for a, shape in zip(parts, shapes, strict=True)]
