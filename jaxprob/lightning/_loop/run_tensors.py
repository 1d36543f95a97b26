"""A run as the tensors of a Lightning checkpoint, by path, and back.

Optax's state goes where Lightning keeps optimisers, so that weights can go alone. Each
leaf is packed once, in the part that it belongs to.
"""

import warnings
from collections.abc import Mapping, Set
from typing import Any

import jax
import jax.numpy as jnp
import torch

from ..._training.accumulate import first_number, windows
from ..._training.carry_over import constants
from .._checkpoint.torch_arrays import (
    dtype_name,
    from_torch,
    leaf_names,
    pack,
    to_torch,
    unpack,
)
from .._errors import CheckpointMismatchError
from .._trainer.precision import STORED
from .fit_optimizer import fit_optimizer, updates_made
from .run import Run, is_optimizer_leaf, optimizer_leaves

_RUN = {"run.key", "run.step", "run.place"}


def model_tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return all but the optimiser: state, key, step and place in the data."""
    place = run.next_place
    tensors = _tensors(run, lambda name: not is_optimizer_leaf(name))
    return {
        **{f"state.{name}": tensor for name, tensor in tensors.items()},
        "run.key": to_torch(run.key),
        "run.step": torch.tensor(run.step),
        "run.place": torch.tensor([place.epoch, place.batch]),
    }


def load_model_tensors(
    run: Run, tensors: Mapping[str, Any], strict: bool, others: Set[str] = frozenset()
) -> tuple[list[str], list[str]]:
    """Check every leaf by name, shape and dtype, and then replace all of them.

    **Arguments:**

    - `others`: names that are expected too, and left to torch.

    **Returns:** the names that are missing, and those that are not expected.

    **Raises:** `CheckpointMismatchError`, which names the leaves.
    """
    names = {n for n in leaf_names(run.state) if not is_optimizer_leaf(n)}
    expected = {f"state.{name}" for name in names} | _RUN | others
    missing, unexpected = _differences(expected, tensors)
    if strict:
        _reject(missing, unexpected)
    leaves = {
        name.removeprefix("state."): tensor
        for name, tensor in tensors.items()
        if name.startswith("state.") and name not in others
    }
    place = _place_of(tensors)
    state = unpack(run.state, leaves)
    if "run.key" in tensors:
        run.key = from_torch("run.key", tensors["run.key"], run.key)
    step = int(tensors.get("run.step", 0))
    run.restart(state, step)
    if place is not None:
        epoch, batch = place
        run.place.restore(epoch, batch, step)
    run.fresh = False
    return missing, unexpected


def stored_precision(run: Run, tensors: Mapping[str, Any]) -> str:
    """Return the Trainer's precision that a checkpoint was written in, by its dtypes.

    It is that of the run itself, unless another one would give every leaf its dtype.
    """
    own = _float_dtypes(run.state)
    found = {
        name: dtype_name(tensors[f"state.{name}"])
        for name in own
        if isinstance(tensors.get(f"state.{name}"), torch.Tensor)
    }
    for precision, dtype in STORED.items():
        known = jax.dtypes.canonicalize_dtype(dtype).name == dtype  # 64 bits or not
        if found == own or dtype not in found.values() or not known:
            continue
        if found == _float_dtypes(run.first_state(precision)):
            return precision
    return run.options.precision


def _float_dtypes(state):
    return {
        name: leaf.dtype.name
        for name, leaf in leaf_names(state).items()
        if jnp.issubdtype(leaf.dtype, jnp.floating) and not is_optimizer_leaf(name)
    }


def optimizer_tensors(run: Run) -> dict[str, torch.Tensor]:
    """Return optax's state: the leaves under a field named `opt_state`."""
    return _tensors(run, is_optimizer_leaf)


def load_optimizer_tensors(run: Run, tensors: Mapping[str, Any]) -> None:
    """Fit optax's state to the Trainer's options, check it, and replace it.

    **Raises:** `CheckpointMismatchError`, which names the leaves, for the state of
    another optimiser.

    **Warns:** of each option that differs.
    """
    leaves = optimizer_leaves(run.state)
    fitted, changes = fit_optimizer(leaves, tensors, run.step)
    for name in constants(run.state):
        # Of the module's optimiser: its value may be a new setting.
        new, old = to_torch(leaves[name]), fitted[name]
        if not torch.equal(new, old):
            changes.append(f"{name} was {old.tolist()} and is {new.tolist()}")
        fitted[name] = new
    run.restart(unpack(run.state, fitted), run.step)
    run.note_updates(updates_made(fitted, run.step))
    for change in changes:
        warnings.warn(
            f"{change} since the checkpoint was written: the rest of the optimiser's "
            "state continues from it",
            stacklevel=2,
        )


def check_window(run: Run, expected: int) -> None:
    """Check that a resumed run accumulates from where the Trainer counts.

    **Raises:** `CheckpointMismatchError`, which names the Trainer's option.
    """
    found = windows(run.state)
    if found and first_number(found[0].num_accumulated) != expected:
        raise CheckpointMismatchError(
            f"Trainer(accumulate_grad_batches={run.accumulate}) differs from that of "
            "the checkpoint, which was written between two updates: "
            f"{first_number(found[0].num_accumulated)} batches are accumulated in it, "
            f"and here it would be {expected}. Give accumulate_grad_batches of that "
            "run, or resume from a checkpoint of an epoch's end"
        )


def _tensors(run, chosen):
    """Return the leaves of the state whose path is chosen. All processes must call it.

    They are read one after the other, so that no device holds the state twice.
    """

    def to_host(state):
        tensors = {}
        for name, leaf in leaf_names(state).items():
            if chosen(name):
                if jax.process_count() > 1:
                    leaf = run.layout.fetch(leaf)
                tensors |= pack({name: leaf})
        return tensors

    return run.read(to_host)


def _place_of(tensors):
    """Return the epoch and batch at which a run continues, if they are stored."""
    tensor = tensors.get("run.place")
    if tensor is None:
        return None
    if tensor.shape != (2,) or tensor.dtype != torch.int64 or tensor.min() < 0:
        raise CheckpointMismatchError(
            f"leaf run.place: the checkpoint holds {dtype_name(tensor)}"
            f"{list(tensor.shape)}, and an epoch and a batch, int64[2], are expected. "
            "Take another checkpoint"
        )
    return tensor.tolist()


def _differences(expected, tensors):
    return sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)


def _reject(missing, unexpected):
    def listing(names):
        return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

    parts = []
    if missing:
        parts.append(f"the checkpoint lacks {listing(missing)}")
    if unexpected:
        parts.append(f"the module has no {listing(unexpected)}")
    if parts:
        raise CheckpointMismatchError(
            "; ".join(parts) + ". Build the module with the settings that the "
            "checkpoint was written with"
        )
