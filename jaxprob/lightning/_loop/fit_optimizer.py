"""State of an optimiser from a checkpoint, fitted to the options of another Trainer.

Accumulation and loss scaling wrap the optimiser, and `optax.chain` numbers its parts:
all of them move a leaf to another path and change nothing of what it holds. So leaves
are compared by their path without numbers and wrappers, in the order of the tree.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import torch

from ..._random.keys import is_key
from .._checkpoint.torch_arrays import to_torch
from .._errors import CheckpointMismatchError

_OPTIMIZER = "opt_state"
_ACCUMULATION = (
    *("accumulated", "accumulated_value", "num_accumulated", "num_updates", "closing"),
)
_SCALE = ("scale", "good_steps", "finite")
_PLATEAU = ("rate_scale", "best_value", "plateau_count", "cooldown_count")
_REASONS = {
    "accumulation": "Trainer(accumulate_grad_batches=...)",
    "scale": "Trainer(precision='16-mixed')",
    "count": "a schedule",
    "plateau": "jaxprob.reduce_on_plateau",
}


def fit_optimizer(
    expected: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], step: int
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Give the tensors the names that are expected.

    State that belongs to options of the Trainer (a window of accumulated gradients, a
    loss scale) begins anew, and a new schedule counts from the updates made so far.

    **Arguments:**

    - `expected`: the leaves of the optimiser's state, by path.
    - `tensors`: those of the checkpoint.
    - `step`: of the run.

    **Returns:** the tensors by their new names, and a phrase for each change.

    **Raises:** `CheckpointMismatchError` for the state of another optimiser.
    """
    if expected.keys() == tensors.keys():
        return dict(tensors), []
    wanted, given = _by_meaning(expected), _by_meaning(tensors)
    fitted: dict[str, torch.Tensor] = {}
    reasons: list[str] = []
    wrong: list[str] = []
    for meaning in [*wanted, *(m for m in given if m not in wanted)]:
        names, sources = wanted.get(meaning, []), given.get(meaning, [])
        pairs = list(zip(names, sources, strict=False))
        fitted |= {name: tensors[source] for name, source in pairs}
        left, over = names[len(pairs) :], sources[len(pairs) :]
        if not left and not over:
            continue
        reason = _reason(meaning)
        if reason is None:
            wrong += [f"the checkpoint lacks {name}" for name in left]
            wrong += [f"the module has no {name}" for name in over]
            continue
        if reason == "accumulation" and over and _is_open(tensors):
            raise CheckpointMismatchError(
                "the checkpoint was written between two updates of accumulated "
                "batches, and this Trainer accumulates none: give the "
                "accumulate_grad_batches of that run, or resume from a checkpoint of "
                "an epoch's end"
            )
        added = "was added" if left else "was taken away"
        reasons.append(f"{_REASONS[reason]} {added}")
        if meaning[1] in ("count", "num_updates"):
            made = updates_made(tensors, step)
            fitted |= {name: _full(expected[name], made) for name in left}
        else:
            fitted |= {name: to_torch(expected[name]) for name in left}
    if wrong:
        shown = "; ".join(wrong[:4]) + ("; ..." if len(wrong) > 4 else "")
        raise CheckpointMismatchError(
            f"{shown}. The optimiser is another one than the checkpoint's. Build the "
            "module with the optimiser that the checkpoint was written with; or begin "
            "a new optimiser from its weights, module.load_state_dict("
            "torch.load(path)['state_dict']) and fit without ckpt_path"
        )
    return fitted, list(dict.fromkeys(reasons))


def _by_meaning(leaves):
    """Group names by their path without numbers and wrappers, in the tree's order."""
    found = defaultdict(list)
    for name in leaves:
        before, _, rest = f".{name}".partition(f".{_OPTIMIZER}.")
        parts = rest.split(".")
        while len(parts) > 1 and (parts[0].isdigit() or parts[0] == "inner"):
            parts = parts[1:]
        found[before, ".".join(parts)].append(name)
    return found


def _reason(meaning):
    """Return the option of the Trainer that a leaf belongs to, or `None`."""
    first = meaning[1].split(".")[0]
    if first in _ACCUMULATION:
        return "accumulation"
    if meaning[1] in _SCALE:
        return "scale"
    if meaning[1] in _PLATEAU:
        return "plateau"
    return "count" if meaning[1] == "count" else None


def _is_open(tensors):
    """Return whether gradients of a window wait for its last batch."""
    return any(
        name.split(".")[-1] == "num_accumulated" and bool(tensor.any())
        for name, tensor in tensors.items()
    )


def updates_made(tensors: Mapping[str, torch.Tensor], step: int) -> int:
    """Return how many updates an optimiser has made, by its own counters if it has one.

    **Arguments:** as in `fit_optimizer`.
    """
    for last in ("num_updates", "count"):
        for name, tensor in tensors.items():
            if name.split(".")[-1] == last and tensor.numel():
                return int(tensor.flatten()[0])
    return step


def _full(leaf, number):
    assert not is_key(leaf)
    return to_torch(np.full(jax.numpy.shape(leaf), number, leaf.dtype))
