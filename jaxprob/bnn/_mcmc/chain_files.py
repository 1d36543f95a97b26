"""Files of a run of chains: shards of draws, and the last state.

`draws-00000.safetensors`, ... hold draws in the order of their making, and
`state.safetensors` holds all that the next transition needs. Each file is replaced
whole, and a shard before the state that counts it: at whatever instant a run is killed,
the shards that the state counts are there.
"""

from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._io import tensor_file
from ..._io.arrays import as_numpy, describe_array, restore_array

SHARD = "draws-{:05d}.safetensors"


def save_shard(
    folder: Path,
    number: int,
    draws: np.ndarray,
    sample_stats: Mapping[str, np.ndarray],
) -> None:
    """Write draws of all chains and their statistics, in the order of their making."""
    tensors = {"draws": draws, **{f"stats.{k}": v for k, v in sample_stats.items()}}
    tensors = {name: as_numpy(array) for name, array in tensors.items()}
    tensor_file.write(folder / SHARD.format(number), tensors, {})


def load_shards(folder: Path, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the draws of all shards, (chains, draws, dim), and their statistics.

    **Raises:** `jaxprob.DamagedFileError` for a shard that has changed.
    """
    paths = [folder / SHARD.format(i) for i in range(count)]
    parts = [tensor_file.read(path)[0] for path in paths]
    joined = {
        name: np.concatenate([part[name] for part in parts], axis=1)
        for name in parts[0]
    }
    draws = joined.pop("draws")
    return draws, {k.removeprefix("stats."): v for k, v in joined.items()}


def save_state(folder: Path, state: PyTree, shards: int) -> None:
    """Write all arrays of a state, and how many shards belong to it."""
    tensors = {f"{i:04d}": as_numpy(a) for i, a in enumerate(_arrays(state))}
    tensor_file.write(folder / "state.safetensors", tensors, {"shards": str(shards)})


def load_state(folder: Path, template: PyTree) -> tuple[PyTree, int] | None:
    """Return the state with the arrays of the file, and its number of shards.

    **Arguments:**

    - `folder`: of the run.
    - `template`: a state of the same structure.

    **Returns:** `None` where the folder holds no state.

    **Raises:** `jaxprob.DamagedFileError` for a file that has changed.
    """
    path = folder / "state.safetensors"
    if not path.exists():
        return None
    tensors, metadata = tensor_file.read(path)
    shards = int(metadata["shards"])
    arrays, rest = eqx.partition(template, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)
    names = [f"{i:04d}" for i in range(len(leaves))]
    loaded = [
        restore_array(name, tensors[name], describe_array(leaf))
        for name, leaf in zip(names, leaves, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, loaded), rest), shards


def _arrays(tree):
    return [leaf for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf)]
