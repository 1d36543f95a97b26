"""Axes along which the arrays of a learner's state lie on the devices of a layout."""

import warnings
from typing import Any

import jax
from jaxtyping import PyTree

from .._checks import path_name
from .._random.keys import is_key
from .._training.capabilities import AbstractMembers
from .._training.learner import AbstractLearner
from .._types import State
from .layout import MEMBERS, SHARD, Layout

_ROUND = 64  # axes of networks are multiples of it


def state_shardings(layout: Layout, learner: AbstractLearner, arrays: State) -> PyTree:
    """Return how the arrays of a learner's state are placed.

    The leaves of which `AbstractMembers.members_axis` says so have a leading axis of
    members. Large leaves are split along the longest of the other axes that
    `layout.shard` divides.

    **Raises:** `ValueError` naming the leaf whose leading axis is not that of the
    members; `members` where there are none; `shard` where it splits no leaf.

    **Warns:** of large leaves that no axis divides, which are on every device.
    """
    if layout.members == layout.shard == 1:
        return jax.tree.map(lambda _: layout.everywhere, arrays)
    has_axis = _has_members_axis(layout, learner, arrays)

    def one(leaf, has_axis):
        axes: list[Any] = [None] * leaf.ndim
        if has_axis and layout.members > 1:
            axes[0] = MEMBERS
        split = split_axis(layout, leaf, int(has_axis))
        if split is not None:
            axes[split] = SHARD
        while axes and axes[-1] is None:
            axes.pop()
        return layout.sharding(*axes)

    shardings = jax.tree.map(one, arrays, has_axis)
    if layout.shard > 1:
        _check_split(layout, arrays, shardings)
    return shardings


def split_axis(layout: Layout, leaf: Any, num_leading: int = 0) -> int | None:
    """Return the axis along which an array is split, or `None` for none.

    **Arguments:**

    - `leaf`: an array, or its shape and dtype.
    - `num_leading`: axes at the beginning that stay whole.
    """
    if layout.shard == 1 or is_key(leaf) or leaf.size < layout.min_shard_size:
        return None
    axes = range(num_leading, leaf.ndim)
    whole = [axis for axis in axes if leaf.shape[axis] % layout.shard == 0]
    return max(whole, key=lambda axis: leaf.shape[axis], default=None)


def _has_members_axis(layout, learner, arrays):
    """A tree of bools: whether a leaf has a leading axis of members."""
    members = learner.capability(AbstractMembers)
    if members is None:
        if layout.members > 1:
            raise ValueError(
                f"Layout(members={layout.members}): {learner.lack(AbstractMembers)}. "
                f"Write Layout(data={layout.num_devices}), or train "
                "jaxprob.bnn.DeepEnsemble(method, num_members=...)"
            )
        return jax.tree.map(lambda _: False, arrays)
    num = members.num_members
    if num % layout.members:
        raise ValueError(
            f"Layout(members={layout.members}) does not divide the {num} members of "
            f"{type(learner).__name__}: each device holds as many as the others"
        )
    axis = members.members_axis(arrays)
    if layout.members > 1:
        for path, leaf in _leaves_where(axis, arrays):
            if leaf.shape[:1] != (num,):
                raise ValueError(
                    f"Layout(members={layout.members}): leaf "
                    f"{jax.tree_util.keystr(path)} of the state has shape "
                    f"{leaf.shape}, whose leading axis is not that of the {num} "
                    f"members. Write Layout(data={layout.num_devices})"
                )
    return axis


def _leaves_where(chosen, arrays):
    flags = jax.tree.leaves(chosen)
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return [pair for pair, flag in zip(leaves, flags, strict=True) if flag]


def _check_split(layout, arrays, shardings):
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    pairs = list(zip(leaves, jax.tree.leaves(shardings), strict=True))
    is_split = [any(axis == SHARD for axis in sharding.spec) for _, sharding in pairs]
    large = [
        (path, leaf)
        for ((path, leaf), _), split in zip(pairs, is_split, strict=True)
        if not split and leaf.size >= layout.min_shard_size
    ]
    names = [f"{path_name(path)} {list(leaf.shape)}" for path, leaf in large]
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    if any(is_split):
        if large:
            warnings.warn(
                f"Layout(shard={layout.shard}) divides no axis of {shown}: every "
                f"device holds them whole. Give these axes a multiple of "
                f"{layout.shard}, such as {_ROUND}, or another shard",
                stacklevel=2,
            )
        return
    if large:
        raise ValueError(
            f"Layout(shard={layout.shard}) divides no axis of {shown}, and no other "
            f"array of the state has min_shard_size={layout.min_shard_size} entries: "
            f"there is nothing to split. Write Layout(data={layout.num_row_parts}), or "
            "a shard that divides an axis"
        )
    largest = max((leaf.size for _, leaf in leaves), default=0)
    names = [path_name(path) for path, leaf in leaves if leaf.size == largest]
    raise ValueError(
        f"Layout(shard={layout.shard}) splits nothing: the largest array of the state, "
        f"{names[0] if names else 'of none'}, has {largest} entries, and "
        f"min_shard_size={layout.min_shard_size}. Write "
        f"Layout(data={layout.num_row_parts}), or a smaller min_shard_size"
    )
