"""Both ends of sampling: the first point, and the step from the last level to data."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_level
from .._denoiser.last_level import last_level
from .._types import Cond
from .sampler import Draw


def begin(
    denoiser: AbstractDenoiser,
    level: float,
    shape: tuple[int, ...],
    cond: Cond,
    *,
    key: PRNGKey,
    start: Float[Array, "..."] | None = None,
) -> Float[Array, "..."]:
    """Return one standardised example at the first level: a draw, or the one given.

    **Arguments:**

    - `denoiser`: the user's, of data in any units.
    - the others: as in `AbstractSampler.draw`.
    """
    unit, units = denoiser.standardised()
    if start is not None:
        return units.to_unit(start)
    last = last_level(unit, level, shape, cond, known=units.known)
    return last.decode(jax.random.normal(key, shape))


def finish(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    levels: np.ndarray,
    path: Float[Array, "levels *shape"] | None,
    cond: Cond,
    num_evaluations: int | Array,
    failed: bool | Array = False,
) -> Draw:
    """Return the sample: the denoiser's answer at the last level is the data.

    **Arguments:**

    - `denoiser`: the user's, of data in any units.
    - `x`: standardised, at the last level.
    - `levels`, `path`: all levels, and x at each of them or `None`.
    - `cond`: its condition.
    - `num_evaluations`, `failed`: as in `Draw`.
    """
    unit, units = denoiser.standardised()
    x_0 = units.to_data(at_level(unit, x, levels[-1], cond))
    count, failed = jnp.asarray(num_evaluations), jnp.asarray(failed)
    if path is None:
        return Draw(x_0, count, failed)
    path = jax.vmap(units.to_data)(path)
    return Draw(x_0, count, failed, path, jnp.asarray(levels, x.dtype))
