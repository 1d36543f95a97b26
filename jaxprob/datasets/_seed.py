"""Seeds of NumPy generators: a number or a key of JAX."""

from typing import TypeAlias

import numpy as np

from .._random.keys import as_seed
from .._types import PRNGKey

Seed: TypeAlias = int | PRNGKey


def generator(seed: Seed) -> np.random.Generator:
    """Return NumPy's generator for a number or a key."""
    return np.random.default_rng(seed if isinstance(seed, int) else as_seed(seed))
