"""Seeds of the host: a number, or one of JAX's keys."""

from typing import TypeAlias

import numpy as np

from .._random.keys import as_seed
from .._types import PRNGKey

Seed: TypeAlias = int | PRNGKey


def generator(seed: Seed) -> np.random.Generator:
    """NumPy's generator from a number or from a key."""
    return np.random.default_rng(seed if isinstance(seed, int) else as_seed(seed))
