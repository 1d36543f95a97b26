"""A run of chains on disk: settings, shards of draws, and the last state.

`run.json` says what is run; `draws-00000.safetensors`, ... hold draws as they come, and
`state.safetensors` all that the next transition needs. Each file is replaced whole, and
a shard before the state that counts it: whatever instant a run is killed at, the state
names shards that are there.
"""

import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._io import tensor_file
from ..._io.arrays import as_numpy, describe_array, restore_array
from ..._io.atomic import replace_whole

SHARD = "draws-{:05d}.safetensors"


def save_shard(folder: Path, number: int, draws: np.ndarray) -> None:
    """Draws of all chains, in the order of their making."""
    tensor_file.write(folder / SHARD.format(number), {"draws": as_numpy(draws)}, {})


def load_shards(folder: Path, count: int) -> list[np.ndarray]:
    """Arrays of shape (chains, draws, numbers), one for each shard.

    **Raises:** `jaxprob.DamagedFileError` for a shard that has changed.
    """
    paths = [folder / SHARD.format(i) for i in range(count)]
    return [tensor_file.read(path)[0]["draws"] for path in paths]


def save_state(folder: Path, state: PyTree, shards: int) -> None:
    """All arrays of a state, and how many shards belong to it."""
    tensors = {f"{i:04d}": as_numpy(a) for i, a in enumerate(_arrays(state))}
    tensor_file.write(folder / "state.safetensors", tensors, {"shards": str(shards)})


def load_state(folder: Path, like: PyTree) -> tuple[PyTree, int] | None:
    """The state with the arrays of the file, and its shards; `None` if there is none.

    **Arguments:**

    - `folder`: of the run.
    - `like`: a state of the same structure.

    **Raises:** `jaxprob.DamagedFileError` for a file that has changed.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    tensors, metadata = tensor_file.read(path)
    shards = int(metadata["shards"])
    arrays, rest = eqx.partition(like, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    names = [f"{i:04d}" for i in range(len(leaves))]
    loaded = [
        restore_array(name, tensors[name], describe_array(leaf))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, loaded), rest), shards


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes what is run, or compares it with what was.

    **Raises:** `ValueError` that names each difference.
    """
    path = folder / "run.json"
    if not path.exists():
        if (folder / "state.safetensors").exists():
            raise ValueError(f"{folder} holds a state without run.json: it is no run")
        text = json.dumps(settings, indent=1)
        replace_whole(path, lambda partial: partial.write_text(text))
        return
    held = json.loads(path.read_text())
    names = sorted(settings.keys() | held.keys())
    differ = [
        f"{name} was {held.get(name)} and is {settings.get(name)}"
        for name in names
        if held.get(name) != settings.get(name)
    ]
    if differ:
        raise ValueError(
            f"{folder} holds another run: {'; '.join(differ)}. Give the run another "
            "folder, or remove this one."
        )


def _arrays(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
