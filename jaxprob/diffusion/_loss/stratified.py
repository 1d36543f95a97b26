"""Uniform numbers for the times of a batch, stratified over its rows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..._types import PRNGKey
from .._schedule.schedule import AbstractSchedule
from .._types import Scalar

# A power of two: 1 - MARGIN is a number of float32, and the noise level that it leads
# to, at most about 1e6, has a square.
MARGIN = 2.0**-20


def uniforms(
    key: PRNGKey, mask: Bool[Array, " batch"], *, stratified: bool
) -> Float[Array, " batch"]:
    r"""Return a number in (0, 1) for each row, at least `MARGIN` from the ends.

    If stratified, the n rows that count get one number in each of the n intervals
    $(i/n, (i+1)/n]$. The interval of the first row is random, so that each number is
    uniform, and their mean varies far less. Padded rows take no interval.

    At the ends a noise level may be 0 or infinite and a weighted error 0 times
    infinity. Rounding leads there about once in $2^{24}$ rows, and more often in large
    batches: (rank + offset) / count is 1 for the last rank and an offset near 1.

    Reference: *Variational Diffusion Models*, Kingma et al., 2021, appendix I.1, has
    one offset for all rows; independent offsets, as in Kidger's example, keep rows
    independent given their interval.

    **Arguments:**

    - `key`: of the offsets.
    - `mask`: which rows count.
    - `stratified`: otherwise rows are independent.
    """
    if not stratified:
        u = 1.0 - jax.random.uniform(key, mask.shape)
        return jnp.clip(u, MARGIN, 1.0 - MARGIN)
    offset_key, first_key = jax.random.split(key)
    offset = 1.0 - jax.random.uniform(offset_key, mask.shape)
    count = jnp.maximum(jnp.sum(mask), 1)
    # Rows in a fixed order, as in validation, would otherwise keep their intervals, and
    # the mean of their losses would be biased.
    first = jax.random.randint(first_key, (), 0, count, count.dtype)
    rank = (jnp.maximum(jnp.cumsum(mask) - 1, 0) + first) % count
    u = (rank.astype(offset.dtype) + offset) / count.astype(offset.dtype)
    return jnp.clip(u, MARGIN, 1.0 - MARGIN)


def before_the_end(schedule: AbstractSchedule, t: Scalar) -> Scalar:
    """Return the time, or the last one at which a weighted error is finite.

    A quantile may round to the end of time before u = 1, as the time of a large noise
    level does.
    """
    span = schedule.t_max - schedule.t_min
    return jnp.minimum(t, schedule.t_max - MARGIN * span)
