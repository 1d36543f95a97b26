"""Many samples in one dispatch."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import PyTree

from ..._engine.layout import Layout
from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser
from .._denoiser.noisy_end import check_noisy_end
from .._schedule.argument_checks import as_shape, check_count, check_kind
from .._schedule.constants import hold_schedules
from .._types import Level, Numbers
from .._velocity.velocity_field import AbstractVelocityField
from ..nn import check_condition, check_given
from .not_finite import check_finite_draws
from .rows import check_rows, over_rows
from .sampler import AbstractSampler, Draw
from .start import checked_start
from .start_checks import check_start


def sample(
    denoiser: AbstractDenoiser | AbstractVelocityField,
    sampler: AbstractSampler,
    *,
    key: PRNGKey,
    num_samples: int,
    shape: tuple[int, ...],
    cond: PyTree = None,
    start: tuple[Numbers, Level] | None = None,
    batch_size: int | None = None,
    trajectory: bool = False,
    progress: bool = False,
    layout: Layout | None = None,
) -> Draw:
    r"""Draw `num_samples` samples in one dispatch.

    Sample i has the key `fold_in(key, i)`: it does not depend on `num_samples` and
    `batch_size`.

    ```python
    draws = sample(denoiser, ODESampler(), key=key, num_samples=64, shape=(1, 28, 28))
    images, evaluations = draws.x_0, draws.num_evaluations.max()
    ```

    **Arguments:**

    - `denoiser`, `sampler`: model and method; a velocity field and `FlowSampler`, or a
        denoiser and any other sampler.
    - `key`: all randomness.
    - `num_samples`: number of samples.
    - `shape`: of one example.
    - `cond`: one condition for each sample, along the leading axis of every leaf.
    - `start`: `(x, level)`: samples begin at the rows of x and not at noise, with all
        steps below the level. x is $x_t/\alpha_t$ in the data's units, as `add_noise`
        and `Draw.path` have it, and the level is in units of the data's standard
        deviation. For a velocity field, $x_t$ and its time t.
    - `batch_size`: samples that are in memory at a time; all by default, or a twentieth
        with a progress bar.
    - `trajectory`: whether to return the path of each sample and its levels.
    - `progress`: whether to show a progress bar on standard error. Each batch is then a
        separate dispatch.
    - `layout`: devices that share the samples of a batch.

    **Returns:** a `Draw` with leading axis `num_samples`.

    **Raises:** `RuntimeError` when the solver gave up on a sample or a sample is not
    finite, with the step at which that began; `ValueError` for a `cond` of another
    length or shape, or an unknown class.
    """
    check_kind("sampler", sampler, AbstractSampler, "give a sampler, e.g. ExpAB(18)")
    sampler.check_model(denoiser)
    check_key(key)
    check_count("num_samples", num_samples, "draw at least one sample")
    shape = as_shape(shape)
    _check_untraced((denoiser, sampler, key, cond, start))
    check_rows(cond, num_samples)
    check_condition(denoiser, cond)
    check_given(denoiser, cond)
    sampler, x = checked_start(sampler, denoiser, start, num_samples, shape)
    held = hold_schedules(denoiser)
    if isinstance(denoiser, AbstractDenoiser) and x is None:
        _check_beginning(denoiser, held, sampler, shape, cond)
    draws = over_rows(
        _Draws(sampler, key, shape, trajectory),
        held,
        (jnp.arange(num_samples, dtype=jnp.uint32), cond, x),
        batch_size=batch_size,
        progress=progress,
        layout=layout,
    )
    check_finite_draws(draws, held, sampler, key, (cond, x), shape)
    return draws


def _check_beginning(denoiser, held, sampler, shape, cond):
    levels = sampler.levels(denoiser, shape)
    if levels is not None:
        check_start(denoiser, held, float(levels[0]), shape, cond)
        check_noisy_end(denoiser, held, float(levels[0]), shape, cond)


class _Draws(eqx.Module):
    """The function that draws a sample for each index and condition."""

    sampler: AbstractSampler
    key: PRNGKey
    shape: tuple[int, ...] = eqx.field(static=True)
    trajectory: bool = eqx.field(static=True)

    def __call__(self, denoiser, rows):
        index, cond, start = rows
        given = {} if start is None else {"start": start}
        keys = jax.vmap(lambda i: jax.random.fold_in(self.key, i))(index)
        return self.sampler.draw_many(
            denoiser,
            self.shape,
            keys=keys,
            cond=cond,
            trajectory=self.trajectory,
            **given,
        )


def _check_untraced(arguments) -> None:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
        raise ValueError(
            "sample checks its draws on the host and cannot be traced by jit, grad or "
            "vmap. Inside them write jax.vmap(lambda key: sampler(denoiser, shape, "
            "key=key))(jax.random.split(key, num_samples))"
        )
