"""Small arrays that are worked on together.

On CPU a kernel costs a microsecond to start, and a small layer's bias takes less than
that to compute.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

SMALL = 4096  # entries, beyond which a copy costs more than a kernel's start


def together(leaves: Iterable[Any]) -> list[list[int]]:
    """Positions of the leaves by group: the small ones of a dtype, each large one."""
    groups: dict[Any, list[int]] = {}
    for position, leaf in enumerate(leaves):
        small = math.prod(leaf.shape) <= SMALL
        groups.setdefault(leaf.dtype if small else position, []).append(position)
    return list(groups.values())


def join(arrays: list[Array]) -> Shaped[Array, "..."]:
    """Arrays end to end as one vector; a single one as it is."""
    if len(arrays) == 1:
        return arrays[0]
    return jnp.concatenate([jnp.ravel(array) for array in arrays])


def part(joined: Array, shapes: list[tuple[int, ...]]) -> list[Array]:
    """The arrays that were joined."""
    if len(shapes) == 1:
        return [joined]
    ends = list(itertools.accumulate(math.prod(shape) for shape in shapes))
    parts = jnp.split(joined, ends[:-1])
    return [jnp.reshape(a, shape) for a, shape in zip(parts, shapes, strict=True)]
