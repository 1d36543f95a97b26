"""Placement on devices along axes of data, of large arrays and of members."""

import functools
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._jaxpr.high_products import partition_high_products
from .._random.keys import is_key
from .._training.batch import Batch

DATA, SHARD, MEMBERS = "data", "shard", "members"


@dataclass(frozen=True)
class Layout:
    """Devices as a grid of `data` by `shard` by `members`.

    ```python
    jaxprob.fit(learner, model, (x, y), key=key, num_steps=1000, layout=Layout(data=4))
    layout = Layout(data=2, members=2)
    jaxprob.fit(ensemble, model, (x, y), key=key, num_steps=1000, layout=layout)
    layout = Layout(shard=4)  # a fourth of the weights on each device
    ```

    The rows of a batch are shared out along `data` and `shard`, the members of an
    ensemble or the chains of a sampler along `members`, and the large arrays of a
    learner's state along `shard`: parameters, the state of the optimiser, averages,
    means and scales of random leaves. All else is on every device. The step is the same
    program as on one device, and gives the same numbers up to the order in which sums
    are rounded; on the same layout it gives the same bits.

    Each array is split along its longest axis that `shard` divides, the first of
    several, so that moments and averages lie where their parameter lies. Nothing else
    is said to XLA, which partitions the program itself and moves whichever is cheaper
    in an operation: parts of a weight or activations. Rows are shared out along `shard`
    too, because operations on arrays that are not split would otherwise be repeated by
    all devices of that axis. `data` then counts copies of the state, and `data=2,
    shard=4` keeps the traffic of a split state within groups of four devices.

    With `shard` the state that `fit` and `Stepper` return stays split. `fetch` puts it
    on one device, and so does `jaxprob.load(...)` of a saved one.

    With several processes (`jax.distributed`) the grid covers the devices of all, each
    process hands over its own rows of a batch, and every process makes the same calls.

    **Arguments:**

    - `data`: devices that share the rows of a batch. `data * shard` divides the batch
        size; batches with a mask (`jaxprob.Batch`) are padded where it does not.
    - `shard`: devices that share the large arrays of the state, and rows.
    - `members`: devices that share the members. It divides their number, and the
        learner is `jaxprob.AbstractMembers`: `jaxprob.bnn.DeepEnsemble`, chains.
    - `devices`: which; the first `data * shard * members` of `jax.devices()` by
        default.
    - `min_shard_size`: entries of the smallest array that is split. To gather a smaller
        one takes longer than its copies are worth: 16,384 numbers are 64 kB.
    """

    data: int = 1
    shard: int = 1
    members: int = 1
    devices: tuple[Any, ...] | None = None
    min_shard_size: int = 2**14

    def __post_init__(self):
        for name in (DATA, SHARD, MEMBERS, "min_shard_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"Layout({name}={getattr(self, name)}): at least 1")
        if self.devices is not None and len(self.devices) != self.num_devices:
            raise ValueError(
                f"{self.grid} is a grid of {self.num_devices} devices; devices holds "
                f"{len(self.devices)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A mesh is of this process; it is made anew.
        return {k: v for k, v in self.__dict__.items() if k != "mesh"}

    @property
    def grid(self) -> str:
        """The call that makes this grid, such as `Layout(data=2, shard=4)`."""
        axes = {name: getattr(self, name) for name in (DATA, SHARD, MEMBERS)}
        long = [f"{name}={num}" for name, num in axes.items() if num > 1]
        return f"Layout({', '.join(long)})"

    @property
    def num_devices(self) -> int:
        return self.num_row_parts * self.members

    @property
    def num_row_parts(self) -> int:
        """Number of parts into which the rows of a batch are cut."""
        return self.data * self.shard

    @property
    def is_single(self) -> bool:
        """One device, JAX's default: nothing needs to be said about placement."""
        return self.num_devices == 1 and self.devices is None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The grid, with axes `"data"`, `"shard"` and `"members"`."""
        devices = jax.devices() if self.devices is None else list(self.devices)
        if len(devices) < self.num_devices:
            raise ValueError(
                f"{self.grid} needs {self.num_devices} devices; JAX sees "
                f"{len(devices)}. On CPU, begin the program with "
                f"jax.config.update('jax_num_cpu_devices', {self.num_devices})"
            )
        if jax.process_count() > 1 and self.num_devices != jax.device_count():
            raise ValueError(
                f"{self.grid} leaves out devices of the {jax.process_count()} "
                f"processes, which have {jax.device_count()} together: give "
                f"data={jax.device_count()}"
            )
        partition_high_products()
        grid = np.array(devices[: self.num_devices], dtype=object)
        shape = self.data, self.shard, self.members
        return Mesh(grid.reshape(shape), (DATA, SHARD, MEMBERS))

    @property
    def everywhere(self) -> NamedSharding:
        """Placement of a copy on each device."""
        return self.sharding()

    def sharding(self, *axes: str | tuple[str, ...] | None) -> NamedSharding:
        """Placement of an array whose axes lie along these axes of the grid."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def keep_members_apart(self, metrics: PyTree) -> PyTree:
        """Return metrics that stay where their members are, inside a program."""

        def one(leaf):
            spec = self.sharding(MEMBERS) if leaf.ndim else self.everywhere
            return jax.lax.with_sharding_constraint(leaf, spec)

        return metrics if self.members == 1 else jax.tree.map(one, metrics)

    def place(self, arrays: PyTree, shardings: PyTree) -> PyTree:
        """Return copies of arrays, in new buffers, placed as `shardings` says.

        No device holds an array whole that is split before and after.
        """
        copy = jax.jit(_copies, out_shardings=shardings)
        if jax.process_count() == 1:
            # A buffer of the host may be used in place: the copy is a new one.
            return copy(jax.device_put(arrays, shardings))

        def host(leaf):
            if _is_spread(leaf):
                return leaf
            leaf = _on_one_device(leaf)
            return leaf if is_key(leaf) else np.asarray(leaf)

        return copy(jax.tree.map(host, arrays))

    def put(self, batch: PyTree, axis: int = 0) -> PyTree:
        """Return a batch (or a stack, with rows along axis 1) shared out.

        **Raises:** `ValueError` for a number of rows that `data * shard` does not
        divide, where there is no mask to pad with.
        """
        if self.is_single:
            return batch
        if jax.process_count() == 1:
            batch = _padded(batch, axis, self.num_row_parts)
        spec = self.sharding(*([None] * axis), (DATA, SHARD))

        def place(leaf):
            whole = self.everywhere if np.ndim(leaf) == axis else spec  # a scalar
            if jax.process_count() == 1:
                return jax.device_put(leaf, whole)
            return jax.make_array_from_process_local_data(whole, np.asarray(leaf))

        return jax.tree.map(place, batch)

    def fetch(self, tree: PyTree) -> PyTree:
        """Return the tree with its arrays whole, on this process's default device.

        With several processes all of them must call it.
        """
        if self.is_single:
            return tree
        arrays, rest = eqx.partition(tree, eqx.is_array)
        return eqx.combine(jax.tree.map(self._here, arrays), rest)

    def result(self, tree: PyTree) -> PyTree:
        """Return the tree as a training hands it over: whole, or split along `shard`.

        The state of a layout with `shard` may be too large for one device.
        """
        return tree if self.shard > 1 else self.fetch(tree)

    def process_rows(self) -> tuple[int, int, int]:
        """Return `(begin, end, num)`: this process's of the parts of a batch's rows."""
        num = self.num_row_parts
        if jax.process_count() == 1:
            return 0, num, num
        grid = self.mesh.devices.reshape(num, self.members)
        owners = [[d.process_index for d in row] for row in grid]
        mine = [i for i, row in enumerate(owners) if jax.process_index() in row]
        return mine[0], mine[-1] + 1, num

    def agree(self, number: int) -> int:
        """Return the number of the first process: all must run the same programs."""
        if self.is_single or jax.process_count() == 1:
            return number
        return int(multihost_utils.broadcast_one_to_all(np.int32(number)))

    def _here(self, leaf):
        if _is_spread(leaf):
            leaf = jax.jit(jnp.copy, out_shardings=self.everywhere)(leaf)
        return _on_one_device(leaf)


def _copies(tree):
    return jax.tree.map(jnp.copy, tree)


def _is_spread(leaf):
    """Return whether parts of an array are on devices of other processes alone."""
    return not leaf.is_fully_addressable and not leaf.is_fully_replicated


def _on_one_device(leaf):
    """The same array on this process's default device."""
    if len(leaf.sharding.device_set) == 1 and leaf.is_fully_addressable:
        return leaf
    if is_key(leaf):
        data = jax.random.key_data(leaf)
        local = jnp.asarray(np.asarray(data))
        return jax.random.wrap_key_data(local, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.asarray(leaf))


def _padded(batch, axis, num_devices):
    """The batch with a number of rows that so many devices divide."""
    leaves = [leaf for leaf in jax.tree.leaves(batch) if np.ndim(leaf) > axis]
    lengths = {np.shape(leaf)[axis] for leaf in leaves}
    if len(lengths) != 1:
        raise ValueError(
            f"a batch whose arrays have {sorted(lengths)} rows cannot be shared by "
            f"{num_devices} devices: give arrays with one leading axis, or train on "
            "one device"
        )
    (rows,) = lengths
    short = -rows % num_devices
    if not short:
        return batch
    if not isinstance(batch, Batch):
        raise ValueError(
            f"a batch of {rows} rows cannot be shared by {num_devices} devices: give "
            f"batch_size={rows + short}, or drop_last=True where it is the ragged "
            "last one, or batches with a mask (jaxprob.Batch), which are padded"
        )

    def pad(leaf):
        leaf = np.asarray(leaf)
        if leaf.ndim <= axis:
            return leaf
        first = np.take(leaf, np.arange(short) % rows, axis)
        return np.concatenate([leaf, first], axis)

    padded = jax.tree.map(pad, batch.data), pad(batch.mask)
    index = (slice(None),) * axis + (slice(rows, None),)
    padded[1][index] = False
    # Put together by its structure: its fields may have an axis more than a batch.
    return jax.tree.unflatten(jax.tree.structure(batch), jax.tree.leaves(padded))
