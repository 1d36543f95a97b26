"""A module as the tensors of a checkpoint: its run, its seed and its description."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from .._checkpoint.description import TEXT, Saved, without_description
from .._errors import CheckpointMismatchError
from . import run_tensors as _run_tensors
from .engine import Engine

_SEED = "run.seed"

POSTERIOR = "posterior."
"""Beginning of the names of tensors that a posterior consists of."""


def module_tensors(engine: Engine) -> dict[str, torch.Tensor]:
    """Return the tensors of a module by path, without optax's state."""
    engine.dispatcher.settle()
    engine.run.wait()
    return {
        **_run_tensors.model_tensors(engine.run),
        _SEED: torch.tensor(engine.keys.seed),
        **engine.description.tensors(engine.scalers),
        **({} if engine.judge is None else engine.judge.tensors()),
    }


def load_module_tensors(
    engine: Engine,
    tensors: Mapping[str, Any],
    strict: bool,
    others: Mapping[str, Any],
) -> tuple[list[str], list[str]]:
    """Compare the description and every leaf, and then replace all of them.

    Outside of a fit, parameters that are stored in another precision bring it with
    them.

    **Arguments:**

    - `strict`: whether names, and settings of the model, must agree.
    - `others`: tensors of torch whose names are expected too.

    **Returns:** the names that are missing, and those that are not expected.

    **Raises:** `CheckpointMismatchError`, which names the settings or the leaves.
    """
    if TEXT in tensors:
        saved = Saved(tensors)
        engine.description.compare(saved, strict)
        engine.scalers = saved.scalers()
    elif strict:
        raise CheckpointMismatchError(
            f"the state dict lacks {TEXT}, which describes the model: take it from "
            "module.state_dict() or a checkpoint, or give strict=False"
        )
    tensors = without_description(tensors)
    posterior = {n: t for n, t in tensors.items() if n.startswith(POSTERIOR)}
    tensors = {n: t for n, t in tensors.items() if n not in posterior}
    run = engine.run
    if not engine.is_fitting:
        precision = _run_tensors.stored_precision(run, tensors)
        engine.adopt(replace(run.options, precision=precision))
    differences = _run_tensors.load_model_tensors(
        run, tensors, strict, {_SEED, *others}
    )
    if _SEED in tensors and int(tensors[_SEED]) != engine.keys.seed:
        engine.use_seed(int(tensors[_SEED]))
    if engine.judge is not None:
        engine.judge.load(posterior)
    return differences
