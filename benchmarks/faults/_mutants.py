"""A checkpoint altered in a thousand ways; each must be found out by a typed error."""

import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import torch

import jaxprob
from jaxprob.lightning import (
    AtomicCheckpointIO,
    CheckpointCorruptError,
    CheckpointMismatchError,
    LearnerModule,
)
from jaxprob.lightning._checkpoint.checkpoint_io import load_verified

Tensors = dict[str, torch.Tensor]


def truncated(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def flipped(data: bytearray, rng: random.Random) -> bytearray:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def appended(data: bytearray, rng: random.Random) -> bytearray:
    return data + rng.randbytes(rng.randrange(1, 200))


def exchanged(data: bytearray, rng: random.Random) -> bytearray:
    """Two pieces of the file in each other's place, as when sectors are mixed up."""
    size = rng.randrange(64, 512)
    while True:
        a, b = (rng.randrange(len(data) - size) for _ in range(2))
        left, right = data[a : a + size], data[b : b + size]
        if abs(a - b) >= size and left != right:
            data[a : a + size], data[b : b + size] = right, left
            return data


# The file is altered and written again, with a seal that fits: the leaves must tell.


def swapped(tensors: Tensors, rng: random.Random) -> Tensors:
    """Two leaves of different shape in each other's place."""
    names = [n for n in tensors if n.startswith("state.")]
    while True:
        a, b = rng.sample(names, 2)
        if tensors[a].shape != tensors[b].shape:
            return tensors | {a: tensors[b], b: tensors[a]}


def of_another_shape(tensors: Tensors, rng: random.Random) -> Tensors:
    name = rng.choice([n for n in tensors if tensors[n].ndim])
    tensor = tensors[name]
    return tensors | {name: torch.cat([tensor, tensor[:1]])}


def of_another_dtype(tensors: Tensors, rng: random.Random) -> Tensors:
    name = rng.choice([n for n in tensors if n.startswith("state.")])
    others = [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.uint8]
    others = [dtype for dtype in others if dtype != tensors[name].dtype]
    return tensors | {name: tensors[name].to(rng.choice(others))}


def lacking(tensors: Tensors, rng: random.Random) -> Tensors:
    name = rng.choice(list(tensors))
    return {n: t for n, t in tensors.items() if n != name}


def with_more(tensors: Tensors, rng: random.Random) -> Tensors:
    return tensors | {f"state.model.extra_{rng.randrange(100)}": torch.zeros(3)}


def of_another_architecture(tensors: Tensors, rng: random.Random) -> Tensors:
    width, depth = rng.choice([(8, 1), (32, 1), (16, 2), (16, 3), (17, 1)])
    return make_module(width, depth).state_dict()


BYTES = (truncated, flipped, appended, exchanged)
LEAVES = (
    swapped,
    of_another_shape,
    of_another_dtype,
    lacking,
    with_more,
    of_another_architecture,
)


def make_module(width: int = 16, depth: int = 1) -> LearnerModule:
    def loss(model, batch, *, key):
        return jnp.zeros(()), {}

    learner = jaxprob.GradientDescent(loss, optax.adam(1e-2), ema=jaxprob.EMA())
    model = eqx.nn.MLP(2, 1, width, depth, key=jax.random.key(0))
    return LearnerModule(learner, model)


def mutant_campaign(runs: int, seed: int = 0) -> dict[str, dict[str, int]]:
    """Mutants made and detected, by kind; and those that torch alone would load."""
    rng = random.Random(seed)
    counts: dict[str, dict[str, int]] = {}
    module = make_module()
    with tempfile.TemporaryDirectory() as folder:
        path, mutant = Path(folder) / "a.ckpt", Path(folder) / "b.ckpt"
        io = AtomicCheckpointIO()
        content: dict[str, Any] = {"state_dict": module.state_dict()}
        content["optimizer_states"] = [module.configure_optimizers().state_dict()]
        io.save_checkpoint(content, path)
        whole = path.read_bytes()
        for i in range(runs):
            # Three in four are of bytes.
            kind: Callable[..., Any] = rng.choice(BYTES if i % 4 else LEAVES)
            if kind in BYTES:
                mutant.write_bytes(bytes(kind(bytearray(whole), rng)))
            else:
                altered = kind(dict(content["state_dict"]), rng)
                io.save_checkpoint(content | {"state_dict": altered}, mutant)
            row = counts.setdefault(
                kind.__name__, {"made": 0, "detected": 0, "torch_loads": 0}
            )
            row["made"] += 1
            row["detected"] += _detected(module, mutant)
            row["torch_loads"] += _loads(mutant)
        io.teardown()
    return counts


def _detected(module, path):
    before = module.state_dict()
    try:
        module.load_state_dict(load_verified(path)["state_dict"])
    except (CheckpointCorruptError, CheckpointMismatchError):
        after = module.state_dict()
        return all(torch.equal(before[name], after[name]) for name in before)
    return False


def _loads(path):
    try:
        torch.load(path, weights_only=True)
    except Exception:  # whatever a damaged file raises
        return False
    return True
