"""A batch: any pytree of arrays with one leading axis, perhaps with padded rows."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int, PyTree, Shaped

from .._jaxpr.examples_last import vmap_last
from .._random.keys import example_keys
from .._types import Loss
from .call_loss import checked_metrics, counts_of


class Batch(eqx.Module):
    """Rows of data, of which the last ones may be padding.

    It also says how many rows a batch has whose arrays differ in length, such as the
    nodes and edges of a few graphs: `Batch(graphs, np.ones(num_graphs, bool))`, with
    one entry of the mask for each graph, and a loss that reads `batch.data`.

    A data set of 100 rows in batches of 32 ends in a batch of 4. Handing that to a
    jitted step compiles it a second time, so the loader pads it to 32 rows with other
    rows of the data set and says in `mask` which rows count.

    A loss whose rows see each other (batch normalisation, contrastive pairs) sees the
    padded rows too. Those of a loader are different rows of the data set, so that the
    statistics of a padded batch are those of a full one; the mask belongs on the terms
    that are summed.

    **Arguments:**

    - `data`: pytree of arrays, each with leading axis `batch`; often `(x, y)`. Padding,
        `mean_loss` and `masked_mean` need that axis; a loss that you write decides.
    - `mask`: `True` where a row counts.
    - `filled`: whether the padded rows hold other rows of the data set, as those of a
        loader do. By default they may hold anything, and where rows see each other the
        rows that count are repeated in their place.
    """

    data: PyTree
    mask: Bool[Array | np.ndarray, " batch"]
    filled: bool = eqx.field(static=True, default=False)

    def __iter__(self):
        raise TypeError(
            "this batch may hold padded rows, so `x, y = batch` would count them. "
            "Write `(x, y), mask = jaxprob.unpack(batch)` and weigh the rows by the "
            "mask, or give a loss for one example to `jaxprob.mean_loss`, or ask the "
            "loader for `drop_last=True`: then batches are plain `(x, y)`."
        )


class Stack:
    """Batches of one shape along a new leading axis, of which the first `num` count.

    One gather of a loader fills it, where stacking batches would copy each twice and
    walk its tree as often.

    **Arguments:**

    - `batches`: a pytree like a batch, with leading axes `(capacity, batch)`.
    - `num`: how many batches it holds.
    """

    def __init__(self, batches: PyTree, num: int):
        self.num = num
        self._batches = batches

    @property
    def batches(self) -> PyTree:
        """The arrays, on the host."""
        return self._batches

    @property
    def capacity(self) -> int:
        """Length of the leading axis."""
        return np.shape(jax.tree.leaves(self.batches)[0])[0]

    def __len__(self) -> int:
        return self.num

    def at(self, index: int) -> PyTree:
        """One batch: views, no copies."""
        return jax.tree.map(lambda leaf: leaf[index], self.batches)

    def unstack(self) -> list[PyTree]:
        """The batches one by one."""
        return [self.at(i) for i in range(self.num)]


class RowStack(Stack):
    """A `Stack` of rows of a table that lies on the device.

    Only the numbers of the rows travel there. On the host a batch is gathered when
    it is read.

    **Arguments:**

    - `table`: the data on the device, all rows.
    - `rows`: row numbers, with axes `(capacity, batch)`.
    - `mask`: which of them count, alike; `None` where batches are plain data.
    - `num`: how many batches it holds.
    - `gather`: `gather(rows, mask)`, the same batches from the host's copy.
    """

    def __init__(
        self,
        table: PyTree,
        rows: Int[np.ndarray, "capacity batch"],
        mask: Bool[np.ndarray, "capacity batch"] | None,
        num: int,
        gather: Callable[..., PyTree],
    ):
        super().__init__(None, num)
        self.table = table
        self.rows = rows
        self.mask = mask
        self._gather = gather

    @property
    def batches(self) -> PyTree:
        return self._gather(self.rows, self.mask)

    @property
    def capacity(self) -> int:
        return len(self.rows)

    def at(self, index: int) -> PyTree:
        mask = None if self.mask is None else self.mask[index]
        return self._gather(self.rows[index], mask)


def gather_rows(table: PyTree, rows: np.ndarray, mask: np.ndarray | None) -> PyTree:
    """Return rows of a table as a batch, or as batches along the axes of `rows`."""
    return as_batches(jax.tree.map(lambda leaf: leaf[rows], table), mask)


def as_batches(data: PyTree, mask: Any) -> PyTree:
    """Return a loader's `Batch`, or a stack of batches; without a mask, plain data.

    It is put together by its structure: in a stack its fields have an axis more.
    """
    if mask is None:
        return data
    lone = jax.tree.map(lambda leaf: np.zeros(1), data)
    structure = jax.tree.structure(Batch(lone, np.ones(1, bool), filled=True))
    return jax.tree.unflatten(structure, [*jax.tree.leaves(data), mask])


def unaliased(batch: PyTree) -> PyTree:
    """Return the batch with copies of its NumPy arrays.

    On CPU a program may read a NumPy buffer in place, after the call that was handed it
    has returned. By then the caller may write to the buffer.
    """
    return jax.tree.map(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, batch
    )


def num_rows(data: PyTree) -> int:
    """Return the length of the leading axis that all arrays of `data` share.

    **Raises:** `ValueError` when there is no array, an array has no axis, or lengths
    differ; the message names the leaf.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise ValueError("the batch holds no array")
    lengths = {}
    for path, leaf in leaves:
        name = jax.tree_util.keystr(path) or "the batch"
        if np.ndim(leaf) == 0:
            raise ValueError(f"{name} has no leading axis: its shape is ()")
        lengths[name] = np.shape(leaf)[0]
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise ValueError(f"arrays differ in length along the leading axis: {listing}")
    return next(iter(lengths.values()))


def unpack(batch: PyTree) -> tuple[PyTree, Bool[Array | np.ndarray, " batch"]]:
    """Return `(data, mask)` of a batch; the mask of plain data is all `True`."""
    if isinstance(batch, Batch):
        return batch.data, batch.mask
    return batch, jnp.ones(num_rows(batch), dtype=bool)


def weight(batch: PyTree) -> Float[Array, ""]:
    """Return how many examples of the batch count: its weight in means over an epoch.

    That is the number of entries of the mask that are `True`, for a `Batch`. For plain
    data it is the length of the leading axis of the first array that has one, whose
    length all others share in most cases; 1 where there is none.
    """
    if isinstance(batch, Batch):
        return jnp.sum(jnp.asarray(batch.mask), dtype=jnp.float32)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    return jnp.asarray(float(next((s[0] for s in shapes if s), 1)), jnp.float32)


def masked_mean(
    values: Shaped[Array, "batch *shape"], mask: Bool[Array | np.ndarray, " batch"]
) -> Inexact[Array, "*shape"]:
    """Return the mean over the rows that count. Other values may be NaN.

    `where` stands inside the sum: zero times NaN is NaN, in the gradient too.
    """
    mask = jnp.asarray(mask)
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        # Of hits, `True` and `False`: a count of rows is no number of their dtype.
        values = values.astype(jnp.result_type(float))
    rows = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    total = jnp.sum(jnp.where(rows, values, jnp.zeros((), values.dtype)), axis=0)
    count = jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)
    return total / count


def mean_loss(loss: Callable[..., Any]) -> Loss:
    """Return the loss of a batch, made from the loss of one example.

    ```python
    @jaxprob.mean_loss
    def squared_error(model, example, *, key):
        x, y = example
        return jnp.sum((model(x) - y) ** 2)
    ```

    **Arguments:**

    - `loss`: `loss(model, example, *, key)`, a scalar or `(scalar, metrics)`. With a
        parameter `step` or `epoch` it gets these numbers, as in `GradientDescent`.

    **Returns:** `loss(model, batch, *, key) -> (scalar, metrics)`: means over the rows
    that count. Example i gets the key `fold_in(key, i)`.
    """

    def mean(model, batch, key, **extra):
        data, mask = unpack(batch)
        keys = example_keys(key, num_rows(data))

        def one(example, key):
            out = loss(model, example, key=key, **extra)
            value, metrics = out if isinstance(out, tuple) else (out, {})
            if jnp.shape(value):
                raise ValueError(
                    f"the loss of one example has shape {jnp.shape(value)}: return one "
                    "number, such as its sum"
                )
            return value, checked_metrics(metrics)

        values, metrics = vmap_last(one)(data, keys)
        metrics = {name: masked_mean(value, mask) for name, value in metrics.items()}
        return masked_mean(values, mask), metrics

    def batch_loss(model, batch, *, key, **counts):
        return mean(model, batch, key, **counts)

    keywords = ["key", *counts_of(loss)]
    vars(batch_loss)["__signature__"] = inspect.Signature(
        [
            inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD)
            for n in _POSITIONAL
        ]
        + [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in keywords]
    )
    return batch_loss


_POSITIONAL = ("model", "batch")
