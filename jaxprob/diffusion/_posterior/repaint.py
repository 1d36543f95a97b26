"""Steps that are repeated, so that measured and other parts come to agree."""

import equinox as eqx
import jax
import jax.numpy as jnp

from .._denoiser.denoiser import at_level
from .._sampler.ddim import DDIM
from .._sampler.grid import AbstractGrid, as_grid
from .._sampler.grid_sampler import AbstractGridSampler, needed
from .._sampler.grids import LogLevelGrid
from .._schedule.argument_checks import check_count


class RePaint(AbstractGridSampler):
    r"""Ancestral steps, each made several times from noise that is put back.

    After a step from level a to b, $x \leftarrow x + \sqrt{a^2 - b^2}\, z$ has the
    level a again, and the step is repeated. With `Replacement`, in whose steps the
    measured part has the distribution $y + s z$ and the other part hardly knows of y,
    both come to agree. It takes any denoiser.

    Reference: *RePaint: Inpainting using Denoising Diffusion Probabilistic Models*,
    Lugmayr et al., 2022, algorithm 1. There the measured part is drawn anew in each
    step; here it moves by the same steps as the rest.

    ```python
    posterior = Replacement(denoiser, Observation(y[0], noise=0.0))
    draws = sample(posterior, RePaint(8), key=key, num_samples=4, shape=(2,))
    ```

    **Arguments:**

    - `grid`: noise levels, or a number of steps of `LogLevelGrid`.
    - `num_resamples`: how often each step is made, 10 in the paper.
    """

    grid: AbstractGrid
    num_resamples: int = eqx.field(static=True)

    def __init__(self, grid: AbstractGrid | int = 25, *, num_resamples: int = 10):
        check_count("num_resamples", num_resamples, "how often each step is made")
        self.grid = as_grid(grid, LogLevelGrid)
        self.num_resamples = num_resamples

    @property
    def evaluations_per_step(self) -> int:
        return self.num_resamples

    def _walk(self, denoiser, x, levels, key, cond, trajectory):
        key, table = needed(key), DDIM(eta=1.0).table(levels)
        assert table.noise is not None
        rows = (levels[:-1], levels[1:], table.keep, table.predict[:, 0], table.noise)
        rows = tuple(jnp.asarray(row, x.dtype) for row in rows)

        def step(x, row):
            i, level, after, keep, weight, noise = row
            here, step_key = x, jax.random.fold_in(key, i)
            up = jnp.sqrt(level**2 - after**2)

            def again(x, j):
                down_key, up_key = jax.random.split(jax.random.fold_in(step_key, j))
                x = jnp.where(j > 0, x + up * _normal(x, key=up_key), x)
                d = at_level(denoiser, x, level, cond)
                x = keep * x + weight * d + noise * _normal(x, key=down_key)
                return x, None

            x, _ = jax.lax.scan(again, x, jnp.arange(self.num_resamples))
            return x, (here if trajectory else None)

        return jax.lax.scan(step, x, (jnp.arange(len(rows[0])), *rows))


def _normal(x, *, key):
    return jax.random.normal(key, x.shape, x.dtype)
