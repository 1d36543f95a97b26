"""Batches on the host: whatever a loader yields, as NumPy arrays."""

from typing import Any

import jax
import numpy as np
import torch
from jaxtyping import PyTree

from .._batch import Batch, num_rows


def as_arrays(batch: PyTree) -> PyTree:
    """Torch tensors become NumPy arrays; all else stays."""
    is_tensor = any(isinstance(leaf, torch.Tensor) for leaf in jax.tree.leaves(batch))
    if not is_tensor:
        return batch
    return jax.tree.map(
        lambda x: x.numpy(force=True) if isinstance(x, torch.Tensor) else x, batch
    )


def num_valid(batch: Any) -> int:
    """How many rows count; 1 for what has no rows."""
    if isinstance(batch, Batch):
        return int(np.sum(batch.mask))
    try:
        return num_rows(batch)
    except ValueError:
        return 1
