"""Step sizes that differ at random from one trajectory to the next."""

import jax
from jaxtyping import Array, Float

from ..._types import PRNGKey


def check_jitter(jitter: float) -> None:
    """Raise `ValueError` unless the fraction is in [0, 1)."""
    if not 0 <= jitter < 1:
        raise ValueError(f"jitter={jitter}: a fraction of the step in [0, 1)")


def jittered(
    step_size: Float[Array, ""], jitter: float, *, key: PRNGKey
) -> tuple[Float[Array, ""], PRNGKey]:
    """Return a step size uniform in (1 - jitter, 1 + jitter) times the given one, and
    the key that is left for the transition.
    """
    if not jitter:
        return step_size, key
    jitter_key, key = jax.random.split(key)
    low, high = 1.0 - jitter, 1.0 + jitter
    factor = jax.random.uniform(jitter_key, (), step_size.dtype, low, high)
    return step_size * factor, key
