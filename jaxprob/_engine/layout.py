"""Placement on devices along axes of data and of members."""

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

from .._random.keys import is_key
from .._training.batch import Batch
from .._training.capabilities import AbstractMembers
from .._training.learner import AbstractLearner
from .._types import State

_DATA, _MEMBERS = "data", "members"


@dataclass(frozen=True)
class Layout:
    """Devices as a grid of `data` by `members`.

    ```python
    jaxprob.fit(learner, model, (x, y), key=key, num_steps=1000, layout=Layout(data=4))
    layout = Layout(data=2, members=2)
    jaxprob.fit(ensemble, model, (x, y), key=key, num_steps=1000, layout=layout)
    ```

    The rows of a batch are shared out along `data`, the members of an ensemble or the
    chains of a sampler along `members`; all else is on every device. The step is the
    same program as on one device, and gives the same numbers up to the order in which
    sums are rounded; on the same layout it gives the same bits.

    With several processes (`jax.distributed`) the grid covers the devices of all, each
    process hands over its own rows of a batch, and every process makes the same calls.

    **Arguments:**

    - `data`: devices that share the rows of a batch. It divides the batch size;
        batches with a mask (`jaxprob.Batch`) are padded where it does not.
    - `members`: devices that share the members. It divides their number, and the
        learner is `jaxprob.AbstractMembers`: `jaxprob.bnn.DeepEnsemble`, chains.
    - `devices`: which; the first `data * members` of `jax.devices()` by default.
    """

    data: int = 1
    members: int = 1
    devices: tuple[Any, ...] | None = None

    def __post_init__(self):
        for name in (_DATA, _MEMBERS):
            if getattr(self, name) < 1:
                raise ValueError(f"Layout({name}={getattr(self, name)}): at least 1")
        if self.devices is not None and len(self.devices) != self.num_devices:
            raise ValueError(
                f"Layout(data={self.data}, members={self.members}) is a grid of "
                f"{self.num_devices} devices; devices holds {len(self.devices)}"
            )

    def __getstate__(self) -> dict[str, Any]:
        # A mesh is of this process; it is made anew.
        return {k: v for k, v in self.__dict__.items() if k != "mesh"}

    @property
    def num_devices(self) -> int:
        return self.data * self.members

    @property
    def is_single(self) -> bool:
        """One device, JAX's default: nothing needs to be said about placement."""
        return self.num_devices == 1 and self.devices is None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The grid, with axes `"data"` and `"members"`."""
        devices = jax.devices() if self.devices is None else list(self.devices)
        if len(devices) < self.num_devices:
            raise ValueError(
                f"Layout(data={self.data}, members={self.members}) needs "
                f"{self.num_devices} devices; JAX sees {len(devices)}. On CPU, begin "
                f"the program with jax.config.update('jax_num_cpu_devices', "
                f"{self.num_devices})"
            )
        if jax.process_count() > 1 and self.num_devices != jax.device_count():
            raise ValueError(
                f"Layout(data={self.data}, members={self.members}) leaves out devices "
                f"of the {jax.process_count()} processes, which have "
                f"{jax.device_count()} together: give data={jax.device_count()}"
            )
        grid = np.array(devices[: self.num_devices], dtype=object)
        return Mesh(grid.reshape(self.data, self.members), (_DATA, _MEMBERS))

    @property
    def everywhere(self) -> NamedSharding:
        """Placement of a copy on each device."""
        return self._sharding()

    def state_shardings(self, learner: AbstractLearner, arrays: State) -> PyTree:
        """Return how the arrays of a learner's state are placed.

        The leaves of which `AbstractMembers.members_axis` says so have a leading axis
        of members; all others are on every device.

        **Raises:** `ValueError` naming the leaf whose leading axis is not that of the
        members, or `members` where there are none.
        """
        if self.members == 1:
            return jax.tree.map(lambda _: self.everywhere, arrays)
        members = learner.capability(AbstractMembers)
        if members is None:
            raise ValueError(
                f"Layout(members={self.members}): {learner.lack(AbstractMembers)}. "
                f"Write Layout(data={self.num_devices}), or train "
                "jaxprob.bnn.DeepEnsemble(method, num_members=...)"
            )
        num = members.num_members
        if num % self.members:
            raise ValueError(
                f"Layout(members={self.members}) does not divide the {num} members of "
                f"{type(learner).__name__}: each device holds as many as the others"
            )

        def one(path, leaf, has_axis):
            if not has_axis:
                return self.everywhere
            if leaf.shape[:1] == (num,):
                return self._sharding(_MEMBERS)
            raise ValueError(
                f"Layout(members={self.members}): leaf "
                f"{jax.tree_util.keystr(path)} of the state has shape {leaf.shape}, "
                f"whose leading axis is not that of the {num} members. Write "
                f"Layout(data={self.num_devices})"
            )

        axis = members.members_axis(arrays)
        return jax.tree_util.tree_map_with_path(one, arrays, axis)

    def keep_members_apart(self, metrics: PyTree) -> PyTree:
        """Return metrics that stay where their members are, inside a program."""

        def one(leaf):
            spec = self._sharding(_MEMBERS) if leaf.ndim else self.everywhere
            return jax.lax.with_sharding_constraint(leaf, spec)

        return metrics if self.members == 1 else jax.tree.map(one, metrics)

    def place(self, arrays: PyTree, shardings: PyTree) -> PyTree:
        """Return copies of arrays, in new buffers, placed as `shardings` says."""

        def host(leaf):
            if is_key(leaf):
                return leaf
            whole = leaf.is_fully_addressable or leaf.is_fully_replicated
            return np.asarray(leaf) if whole else leaf

        copy = jax.jit(_copies, out_shardings=shardings)
        return copy(jax.tree.map(host, self._here(arrays)))

    def put(self, batch: PyTree, axis: int = 0) -> PyTree:
        """Return a batch (or a stack, with rows along axis 1) shared out along `data`.

        **Raises:** `ValueError` for a number of rows that `data` does not divide, where
        there is no mask to pad with.
        """
        if self.is_single:
            return batch
        if jax.process_count() == 1:
            batch = _padded(batch, axis, self.data)
        spec = self._sharding(*([None] * axis), _DATA)

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
        return eqx.combine(self._here(arrays), rest)

    def process_rows(self) -> tuple[int, int, int]:
        """Return `(begin, end, data)`: this process's part of the rows of a batch."""
        if jax.process_count() == 1:
            return 0, self.data, self.data
        owners = [[d.process_index for d in row] for row in self.mesh.devices]
        mine = [i for i, row in enumerate(owners) if jax.process_index() in row]
        return mine[0], mine[-1] + 1, self.data

    def agree(self, number: int) -> int:
        """Return the number of the first process: all must run the same programs."""
        if self.is_single or jax.process_count() == 1:
            return number
        return int(multihost_utils.broadcast_one_to_all(np.int32(number)))

    def _here(self, arrays):
        if jax.process_count() > 1:
            foreign = [
                not leaf.is_fully_addressable and not leaf.is_fully_replicated
                for leaf in jax.tree.leaves(arrays)
            ]
            if any(foreign):
                arrays = jax.jit(_copies, out_shardings=self.everywhere)(arrays)
        return jax.tree.map(_on_one_device, arrays)

    def _sharding(self, *spec):
        return NamedSharding(self.mesh, PartitionSpec(*spec))


def _copies(tree):
    return jax.tree.map(jnp.copy, tree)


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
    """The batch with as many rows as the devices along `data` divide."""
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
