"""A batch: any pytree of arrays with one leading axis, perhaps with padded rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ._keys import example_keys
from ._types import Loss


class Batch(eqx.Module):
    """Rows of data, of which the last ones may be padding.

    A data set of 100 rows in batches of 32 ends in a batch of 4. Handing that to a
    jitted step compiles it a second time, so the loader pads it to 32 rows with copies
    of a real row and says in `mask` which rows count.

    **Arguments:**

    - `data`: pytree of arrays, each with leading axis `batch`; often `(x, y)`.
    - `mask`: `True` where a row counts.
    """

    data: PyTree
    mask: Bool[Array | np.ndarray, " batch"]

    def __iter__(self):
        raise TypeError(
            "this batch may hold padded rows, so `x, y = batch` would count them. "
            "Write `(x, y), mask = jaxprob.unpack(batch)` and weigh the rows by the "
            "mask, or give a loss for one example to `jaxprob.mean_loss`, or ask the "
            "loader for `drop_last=True`: then batches are plain `(x, y)`."
        )


@dataclass(frozen=True)
class Stack:
    """Batches of one shape along a new leading axis, of which the first `num` count.

    One gather of a loader fills it, where stacking batches would copy each twice and
    walk its tree as often.

    **Fields:**

    - `batches`: a pytree like a batch, with leading axes `(capacity, batch)`.
    - `num`: how many batches it holds.
    """

    batches: PyTree
    num: int

    def __len__(self) -> int:
        return self.num

    def at(self, index: int) -> PyTree:
        """One batch: views, no copies."""
        return jax.tree.map(lambda leaf: leaf[index], self.batches)

    def unstack(self) -> list[PyTree]:
        """The batches one by one."""
        return [self.at(i) for i in range(self.num)]


def num_rows(data: PyTree) -> int:
    """Length of the leading axis that all arrays of `data` share.

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
    """`(data, mask)` of a batch; the mask of plain data is all `True`."""
    if isinstance(batch, Batch):
        return batch.data, batch.mask
    return batch, jnp.ones(num_rows(batch), dtype=bool)


def weight(batch: PyTree) -> Float[Array, ""]:
    """How many examples of the batch count."""
    _, mask = unpack(batch)
    return jnp.sum(jnp.asarray(mask), dtype=jnp.float32)


def masked_mean(
    values: Float[Array, "batch *shape"], mask: Bool[Array | np.ndarray, " batch"]
) -> Float[Array, "*shape"]:
    """Mean over the rows that count. Values of padded rows may be anything, even NaN.

    `where` stands inside the sum: zero times NaN is NaN, in the gradient too.
    """
    mask = jnp.asarray(mask)
    rows = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
    total = jnp.sum(jnp.where(rows, values, jnp.zeros((), values.dtype)), axis=0)
    count = jnp.maximum(jnp.sum(mask), 1).astype(values.dtype)
    return total / count


def mean_loss(loss: Callable[..., Any]) -> Loss:
    """Turns a loss for one example into the loss of a batch.

    ```python
    @jaxprob.mean_loss
    def squared_error(model, example, *, key):
        x, y = example
        return jnp.sum((model(x) - y) ** 2)
    ```

    **Arguments:**

    - `loss`: `loss(model, example, *, key)`, a scalar or `(scalar, metrics)`.

    **Returns:** `loss(model, batch, *, key) -> (scalar, metrics)`: means over the rows
    that count. Example i gets the key `fold_in(key, i)`.
    """

    def batch_loss(model, batch, *, key):
        data, mask = unpack(batch)
        keys = example_keys(key, num_rows(data))

        def one(example, key):
            out = loss(model, example, key=key)
            return out if isinstance(out, tuple) else (out, {})

        values, metrics = jax.vmap(one)(data, keys)
        metrics = {name: masked_mean(value, mask) for name, value in metrics.items()}
        return masked_mean(values, mask), metrics

    return batch_loss
