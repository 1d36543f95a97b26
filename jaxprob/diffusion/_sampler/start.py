"""Samples that begin at given examples: editing, refinement, solves that go on."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._checks import check_finite
from ..._random.keys import example_keys
from ..._types import Model, PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._denoiser.units import along_leading
from .._schedule.argument_checks import as_example
from .._schedule.level_checks import ROUNDING, positive
from .._types import Level, Numbers
from .sampler import AbstractSampler


def add_noise(
    denoiser: AbstractDenoiser, x: Numbers, level: Level, *, key: PRNGKey
) -> Float[Array, "rows ..."]:
    r"""Return examples with noise of a level in them, $x + s S z$.

    They are where a sampler may begin, as in SDEdit: the higher the level, the less of
    an example is left in its sample.

    ```python
    noisy = add_noise(denoiser, x, 1.0, key=key)
    settings = {"key": key, "num_samples": len(x), "shape": x.shape[1:]}
    edited = sample(denoiser, ExpAB(8), start=(noisy, 1.0), **settings)
    ```

    Reference: *SDEdit: Guided Image Synthesis and Editing with Stochastic Differential
    Equations*, Meng et al., 2022.

    **Arguments:**

    - `denoiser`: whose `standardised()` gives the scale S of the data.
    - `x`: examples along a leading axis, in the data's units.
    - `level`: s, in units of the data's standard deviation, as in a sampler's grid.
    - `key`: of the noise; row i has the key `fold_in(key, i)`.

    **Returns:** $x_t/\alpha_t$ of each row at the level.
    """
    check_denoiser(denoiser)
    x, units = as_example("x", x), denoiser.standardised()[1]
    level = jnp.asarray(level, x.dtype)

    def one(x, key):
        z = jax.random.normal(key, x.shape, x.dtype)
        return x + level * along_leading(units.scale, x) * z

    return jax.vmap(one)(x, example_keys(key, len(x)))


def checked_start(
    sampler: AbstractSampler,
    model: Model,
    start: Any,
    num_samples: int,
    shape: tuple[int, ...],
) -> tuple[AbstractSampler, Float[Array, "rows ..."] | None]:
    """Return the sampler that begins where it is asked to, and the points.

    **Arguments:** those of `sample`.

    **Raises:** `TypeError` or `ValueError` for anything but a pair of points and a
    level that model and sampler have.
    """
    if start is None:
        return sampler, None
    if not isinstance(start, tuple | list) or len(start) != 2:
        raise TypeError(
            f"start is a {type(start).__name__}: give (x, {sampler.level_name}), e.g. "
            "start=(add_noise(denoiser, images, 1.0, key=key), 1.0)"
        )
    x, level = as_example("start[0]", start[0]), start[1]
    check_finite("start[0]", np.asarray(x))
    if x.shape != (num_samples, *shape):
        raise ValueError(
            f"start[0] has shape {x.shape}, and num_samples={num_samples} samples of "
            f"shape={shape} need {(num_samples, *shape)}"
        )
    sampler = sampler.beginning_at(level)
    if isinstance(model, AbstractDenoiser):
        level, levels = positive("start[1]", level), sampler.levels(model, shape)
        if levels is not None and abs(levels[0] - level) > ROUNDING * level:
            raise ValueError(
                f"start[1] = {level:g}, but {type(model.schedule).__name__} has noise "
                f"levels up to {levels[0]:g} only: add noise of a level that it has"
            )
    return sampler, x
