"""Files of a run of chains: shards of draws, and the last state.

`draws-00000.safetensors`, ... hold draws in the order of their making, and
`state.safetensors` holds all that the next transition needs. Each file is replaced
whole, and a shard before the state that counts it: at whatever instant a run is killed,
the shards that the state counts are there.
"""

from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ..._io import tensor_file
from ..._io.arrays import as_numpy, describe_array, restore_array

SHARD = "draws-{:05d}.safetensors"


def save_shard(folder: Path, number: int, draws: np.ndarray) -> None:
    """Write draws of all chains, in the order of their making."""
    tensor_file.write(folder / SHARD.format(number), {"draws": as_numpy(draws)}, {})


def load_shards(folder: Path, count: int) -> list[np.ndarray]:
    """Return arrays of shape (chains, draws, dim), one for each shard.

    **Raises:** `jaxprob.DamagedFileError` for a shard that has changed.
    """
    paths = [folder / SHARD.format(i) for i in range(count)]
    return [tensor_file.read(path)[0]["draws"] for path in paths]


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
