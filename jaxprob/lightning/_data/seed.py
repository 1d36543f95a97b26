"""The seed of a module or a data module, by Lightning's convention."""

import os
from typing import Any

import numpy as np


def resolve_seed(seed: Any) -> int:
    """Return the seed given, else that of `pl.seed_everything`, else 0.

    `pl.seed_everything(s)` and LightningCLI's `--seed_everything` store their number in
    the environment, as `PL_GLOBAL_SEED`.

    **Raises:** `TypeError` or `ValueError` for a value that is no seed.
    """
    if seed is None:
        return int(os.environ.get("PL_GLOBAL_SEED", "0"))
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise TypeError(f"seed={seed!r} is a {type(seed).__name__}: give an integer")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed={seed}: give an integer from 0 to 2**32 - 1")
    return int(seed)
