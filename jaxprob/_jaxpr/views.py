"""Arrays of a program whose entries are those of another array, rearranged."""

from typing import Any, NamedTuple

import numpy as np


class View(NamedTuple):
    """An array made of the entries of another, by transposes, reshapes and the like.

    **Fields:**

    - `source`: the other array, by any hashable name.
    - `index`: where each entry stands in the flat source.
    """

    source: Any
    index: np.ndarray


def rearranged(eqn: Any, index: np.ndarray) -> list[np.ndarray] | None:
    """Return the index of each result of an equation, for that of its operand.

    **Returns:** `None` if the equation does more than to rearrange entries.
    """
    rule = _RULES.get(eqn.primitive.name)
    return None if rule is None else rule(index, eqn.params)


def _broadcast(index, params):
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], index.shape, strict=True):
        shape[axis] = size
    return [np.broadcast_to(index.reshape(shape), params["shape"])]


def _slice(index, params):
    strides = params["strides"] or (1,) * index.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [index[tuple(slice(*bound) for bound in bounds)]]


def _split(index, params):
    places = np.cumsum(params["sizes"])[:-1]
    return np.split(index, places, params["axis"])


_RULES = {
    "broadcast_in_dim": _broadcast,
    "convert_element_type": lambda index, params: [index],
    "copy": lambda index, params: [index],
    "reshape": lambda index, params: [index.reshape(params["new_sizes"])],
    "rev": lambda index, params: [np.flip(index, params["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda index, params: [np.squeeze(index, params["dimensions"])],
    "transpose": lambda index, params: [index.transpose(params["permutation"])],
}
