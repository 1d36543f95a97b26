"""Ring buffers of draws: new rows replace the oldest."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from .kept_draws import KeptDraws


def put(
    ring: Shaped[Array, "chains draws ..."],
    values: Shaped[Array, "chains ..."],
    *,
    schedule: KeptDraws,
    step: Int[Array, ""],
) -> Shaped[Array, "chains draws ..."]:
    """Return the buffer with the values in it, if this step keeps a draw.

    **Arguments:**

    - `ring`: a buffer of all chains.
    - `values`: of each chain after this transition.
    - `schedule`: of the transitions whose values are kept.
    - `step`: transitions made before this one.
    """
    before = schedule.num_kept(step)
    due = schedule.num_kept(step + 1) > before
    row = before % ring.shape[1]
    # A choice of the rows, not of the buffer: that would copy it in every step.
    rows = jnp.where(due, values, ring[:, row])
    return ring.at[:, row].set(rows)


def in_order(
    ring: Shaped[Array, "chains draws ..."], num_kept: int
) -> Shaped[Array, "chains rows ..."]:
    """Return the rows that are filled, the oldest first.

    **Arguments:**

    - `ring`: a buffer of all chains.
    - `num_kept`: values recorded so far, of which the last are in the buffer.
    """
    length = ring.shape[1]
    if num_kept <= length:
        return ring[:, :num_kept]
    return jnp.roll(ring, -(num_kept % length), axis=1)
