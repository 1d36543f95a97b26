"""One compiled program over many rows, in batches, on one device or several."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree
from tqdm.auto import tqdm

from ..._engine.layout import DATA, SHARD, Layout
from ..._jaxpr.convolutions import with_fast_convolutions
from ..._training.batch import num_rows
from ..._types import Model
from .._schedule.argument_checks import check_count, check_kind
from .._schedule.constants import free_schedules
from .._types import ARRAYS


def over_rows(
    many: Callable[[Model, PyTree], PyTree],
    held: Model,
    rows: PyTree,
    *,
    batch_size: int | None,
    progress: bool,
    layout: Layout | None,
) -> PyTree:
    """Return `many(model, rows)`, computed `batch_size` rows at a time.

    There is one dispatch, unless a progress bar is shown or there are several devices.
    Then each batch is a dispatch, the last padded to the size of the others.

    **Arguments:**

    - `many`: returns a tree of arrays with a leading axis of rows. It is a module or a
        function of a file, so that a second call finds the program of the first.
    - `held`: the model, as `hold_schedules` returns it.
    - `rows`: a tree of arrays with a leading axis, at least one row.
    - `batch_size`: all rows by default; a twentieth with a progress bar.
    - `progress`: whether to show a progress bar on standard error.
    - `layout`: devices that share the rows of a batch, along `data` and `shard`; the
        model is on each of them.
    """
    num, layout = num_rows(rows), Layout() if layout is None else layout
    check_kind("layout", layout, Layout, "give a jaxprob.Layout(data=2)")
    if batch_size is None:
        batch_size = -(-num // 20) if progress else num
    check_count("batch_size", batch_size, "a batch has at least one row")
    batch_size = min(batch_size, num)
    if layout.is_single and not progress:
        return _program(many, held, rows, batch_size, None)
    batch_size += -batch_size % layout.num_row_parts
    many, held = _everywhere((many, held), layout)
    mesh = None if layout.is_single else layout.mesh

    def one(begin):
        batch = jax.tree.map(lambda leaf: _padded(leaf, begin, batch_size), rows)
        batch = layout.put(_own(batch, batch_size, layout))
        out = layout.fetch(_program(many, held, batch, batch_size, mesh))
        out = jax.tree.map(lambda leaf: leaf[: num - begin], out)
        return jax.block_until_ready(out)

    begins = tqdm(range(0, num, batch_size), unit="batch", disable=not progress)
    return _joined([one(begin) for begin in begins])


def check_rows(cond: PyTree, num: int) -> None:
    """Check that each leaf of a condition has a row for each example.

    **Raises:** `TypeError` for a leaf that is not an array, `ValueError` for another
    length.
    """
    for leaf in jax.tree.leaves(cond):
        if not isinstance(leaf, ARRAYS) or not leaf.ndim:
            raise TypeError(
                f"cond has a {type(leaf).__name__} where an array with a row for each "
                "example is needed: write jnp.full((num_samples,), label) for one "
                "class, jnp.asarray(labels) for a list"
            )
    if jax.tree.leaves(cond) and num_rows(cond) != num:
        raise ValueError(
            f"cond has {num_rows(cond)} rows for {num} examples; give each its own, "
            "such as jnp.full((num_samples,), label)"
        )


@eqx.filter_jit
def _program(many, held, rows, batch_size, mesh):
    arrays, rest = eqx.partition((many, held), eqx.is_array)

    def all_of_them(arrays, rows):
        many, held = eqx.combine(arrays, rest)
        return _in_batches(
            lambda part: many(free_schedules(held), part), rows, batch_size
        )

    fast = with_fast_convolutions(all_of_them)
    if mesh is None:
        return fast(arrays, rows)
    # Each device runs its own loop and does not wait for adaptive solves of others. The
    # arrays of the model are an argument: one that is closed over keeps the sharding of
    # the outside, which a gather from a table of classes rejects.
    spec = PartitionSpec((DATA, SHARD))
    return jax.shard_map(
        fast,
        mesh=mesh,
        in_specs=(PartitionSpec(), spec),
        out_specs=spec,
        check_vma=False,
    )(arrays, rows)


def _in_batches(some, rows, batch_size):
    num = num_rows(rows)
    if batch_size >= num:
        return some(rows)
    whole = num // batch_size * batch_size
    full = jax.tree.map(
        lambda leaf: leaf[:whole].reshape(-1, batch_size, *leaf.shape[1:]), rows
    )
    out = jax.tree.map(
        lambda leaf: leaf.reshape(whole, *leaf.shape[2:]), jax.lax.map(some, full)
    )
    if whole == num:
        return out
    return _joined([out, some(jax.tree.map(lambda leaf: leaf[whole:], rows))])


def _everywhere(tree: Any, layout: Layout):
    if layout.is_single:
        return tree
    arrays, rest = eqx.partition(tree, eqx.is_array)
    shardings = jax.tree.map(lambda _: layout.everywhere, arrays)
    return eqx.combine(layout.place(arrays, shardings), rest)


def _own(batch, size, layout):
    """Return this process's part of a batch."""
    begin, end, num = layout.process_rows()
    part = size // num
    return jax.tree.map(lambda leaf: leaf[begin * part : end * part], batch)


def _padded(leaf, begin, size):
    part = leaf[begin : begin + size]
    short = size - len(part)
    if not short:
        return part
    stack = np.concatenate if isinstance(part, np.ndarray) else jnp.concatenate
    return stack([part, leaf[:1].repeat(short, axis=0)])


def _joined(parts):
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
