"""Plain data, which torch reads back from a file without running code.

`torch.load(weights_only=True)`, the default of the Trainer, takes tensors, strings,
numbers and the built-in containers. A checkpoint that holds anything else can be
written and not be read, so it is rejected when it is written.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from lightning_fabric.utilities import AttributeDict
from torch.serialization import get_unsafe_globals_in_checkpoint

from .._errors import CheckpointContentError

_NUMBERS = (bool, int, float, complex, str, bytes)


def without_numpy_scalars(tree: Any) -> Any:
    """Return a tree of containers with the equal Python number for each NumPy scalar.

    Lightning's `dirpath` becomes a string, and an `AttributeDict` of Lightning, such as
    `hparams`, a plain dictionary. Containers without any of these are returned as they
    are; none is changed in place.
    """
    if isinstance(tree, np.generic):
        number = tree.item()
        return number if type(number) in _NUMBERS else tree
    if type(tree) in (list, tuple, set, frozenset):
        entries = [without_numpy_scalars(entry) for entry in tree]
        same = all(new is old for new, old in zip(entries, tree, strict=True))
        return tree if same else type(tree)(entries)
    if isinstance(tree, dict):
        entries = {
            without_numpy_scalars(key): _folder_name(value)
            if key == "dirpath"
            else without_numpy_scalars(value)
            for key, value in tree.items()
        }
        same = all(
            new is old and entries[new] is tree[old]
            for new, old in zip(entries, tree, strict=True)
        )
        if isinstance(tree, AttributeDict):
            return entries
        return tree if same else _like(tree, entries)
    return tree


def check_plain(tree: Any, name: str) -> None:
    """Check that torch can read back each entry of a tree of containers.

    **Arguments:**

    - `tree`: such as a checkpoint.
    - `name`: of the file, for the error.

    **Raises:** `CheckpointContentError`, which names the first entry that it cannot.
    """
    found = _first_object(tree, "")
    if found is not None:
        path, value = found
        raise CheckpointContentError(
            f"{name} was not written: its entry {path} is a {_kind(value)}, which "
            "torch does not read back (weights_only=True, the Trainer's default, runs "
            f"no code). {_remedy(path, value)}. To keep such objects and read them "
            "with weights_only=False, give Trainer(plugins=[AtomicCheckpointIO("
            "plain=False)])"
        )


def objects_in(file: Any) -> list[str]:
    """Return the names of classes and functions that reading a file would call.

    Only the names are read. Those that torch accepts as plain are left out.
    """
    if not isinstance(file, Path):
        file.seek(0)
    try:
        return sorted(get_unsafe_globals_in_checkpoint(file))
    except Exception:  # no archive, or no pickle in it
        return []


def _first_object(tree, path):
    """Return the path and value of the first entry that is not plain."""
    if isinstance(tree, torch.Tensor | str | bytes | int | float) and not isinstance(
        tree, np.generic
    ):
        return None
    if isinstance(tree, dict):
        children = [(f"[{key!r}]", value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        children = [(f"[{i}]", value) for i, value in enumerate(tree)]
    else:
        children = []
    for step, child in children:
        found = _first_object(child, path + step)
        if found is not None:
            return found
    return None if _is_plain(tree) else (path or "of the whole file", tree)


def _is_plain(value):
    buffer = io.BytesIO()
    try:
        torch.save(value, buffer)
    except (pickle.PicklingError, AttributeError, TypeError, RecursionError):
        return False
    return not objects_in(buffer)


def _kind(value):
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _remedy(path, value):
    if isinstance(value, Path):
        return "Keep str(path) instead"
    if isinstance(value, np.ndarray):
        return "Keep torch.from_numpy(array) or array.tolist() instead"
    if isinstance(value, jax.Array):
        return "Keep a number, float(x), or a tensor, torch.from_numpy(np.array(x))"
    if path.startswith("['hyper_parameters']"):
        key = path.removeprefix("['hyper_parameters']").strip("[]").split("]")[0]
        return (
            f"Leave it out, self.save_hyperparameters(ignore=[{key}]), and give it to "
            "load_from_checkpoint"
        )
    return "Keep numbers, strings, tensors, and lists and dicts of them instead"


def _folder_name(value):
    """Return the folder of a checkpoint callback as text."""
    return str(value) if isinstance(value, Path) else value


def _like(tree, entries):
    """Return a dictionary of the same class as `tree`, one of Python's."""
    if type(tree) is dict:
        return entries
    copied = tree.copy()
    copied.clear()
    copied.update(entries)
    return copied
