"""The posterior of a module as tensors of its checkpoint."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import torch

from ..._io.arrays import as_numpy
from ..._io.errors import DamagedFileError, FileMismatchError
from ..._io.save import DescribedFile, metadata_of
from ...bnn import (
    AbstractInference,
    AbstractPosterior,
    LaplaceDraws,
    LaplacePosterior,
)
from ...bnn._posterior.save import described, rebuilt
from .._checkpoint.torch_arrays import to_numpy, to_torch
from .._errors import CheckpointCorruptError, CheckpointMismatchError
from .._loop.module_tensors import POSTERIOR

_TEXT = f"{POSTERIOR}description"
_ARRAY = f"{POSTERIOR}array."


def posterior_tensors(posterior: AbstractPosterior) -> dict[str, torch.Tensor]:
    """Return a posterior as tensors by name.

    **Raises:** `TypeError` naming a part that no file can hold.
    """
    spec, arrays = described(_without_joint(posterior))
    text = json.dumps(metadata_of(spec)).encode()
    return {
        _TEXT: torch.frombuffer(bytearray(text), dtype=torch.uint8),
        **{f"{_ARRAY}{name}": to_torch(a) for name, a in arrays.items()},
    }


def posterior_of_tensors(
    tensors: Mapping[str, Any], inference: AbstractInference, model: Any
) -> AbstractPosterior | None:
    """Return the posterior of `posterior_tensors`; `None` where there is none.

    **Arguments:**

    - `inference`: the method; prior and likelihood are its own.
    - `model`: of the module.

    **Raises:** `CheckpointCorruptError`, `CheckpointMismatchError`.
    """
    if _TEXT not in tensors:
        return None
    arrays = {
        name.removeprefix(_ARRAY): as_numpy(to_numpy(tensor))
        for name, tensor in tensors.items()
        if name.startswith(_ARRAY)
    }
    try:
        metadata = json.loads(bytes(tensors[_TEXT].cpu().numpy()))
        file = DescribedFile(Path("the checkpoint's posterior"), arrays, metadata)
        posterior = rebuilt(file, model=model)
    except FileMismatchError as error:
        raise CheckpointMismatchError(str(error)) from error
    except (DamagedFileError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(
            f"the checkpoint's posterior cannot be read: {error}"
        ) from error
    return _with_joint(posterior, inference)


def _without_joint(posterior):
    """The posterior without prior and likelihood, which may be the user's functions."""
    return _each_laplace(posterior, lambda q: (None, None))


def _with_joint(posterior, inference):
    joint = inference.log_joint
    return _each_laplace(posterior, lambda q: (joint.prior, joint.likelihood))


def _each_laplace(posterior, parts):
    def is_laplace(node):
        return isinstance(node, LaplacePosterior | LaplaceDraws)

    def one(node):
        if not is_laplace(node):
            return node
        prior, likelihood = parts(node)
        values = (
            (likelihood,) if isinstance(node, LaplaceDraws) else (prior, likelihood)
        )
        return eqx.tree_at(
            lambda q: (
                (q.likelihood,)
                if isinstance(q, LaplaceDraws)
                else (q.prior, q.likelihood)
            ),
            node,
            values,
            is_leaf=lambda leaf: leaf is None,
        )

    return jax.tree.map(one, posterior, is_leaf=is_laplace)
