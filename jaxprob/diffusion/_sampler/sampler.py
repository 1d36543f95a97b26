"""What every sampler must say, and drawing many samples in one dispatch."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from ..._engine.layout import Layout
from ..._random.keys import check_key
from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser, at_noise_level, check_denoiser
from .._denoiser.last_level import last_level
from .._denoiser.noisy_end import check_noisy_end
from .._schedule.argument_checks import as_shape, check_count, check_kind
from .._schedule.constants import free_schedules, hold_schedules
from .._types import Cond
from ..nn import check_condition, check_given
from .rows import check_rows, over_rows
from .start_checks import check_start


class Draw(eqx.Module):
    r"""One sample and what it cost; with a leading axis, several.

    **Fields:**

    - `x_0`: the sample.
    - `num_evaluations`: calls of the denoiser it took on its way, beside those for the
        distribution of the first level, which samples of one condition share.
    - `failed`: whether the solver gave up, at its maximum of steps.
    - `path`: $x_t/\alpha_t$ at the noise levels `levels`, from noise to data, if it
        was asked for. Levels are in units of the data's standard deviation.
    """

    x_0: Float[Array, "..."]
    num_evaluations: Int[Array, "..."]
    failed: Bool[Array, "..."]
    path: Float[Array, "..."] | None = None
    levels: Float[Array, "..."] | None = None


class AbstractSampler(eqx.Module):
    """Turns noise into one sample. `jax.vmap` over keys for more, or call `sample`."""

    @abc.abstractmethod
    def draw(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
        trajectory: bool = False,
    ) -> Draw:
        """One sample with its cost.

        **Arguments:**

        - `denoiser`: the model.
        - `shape`: of one example.
        - `key`: all of the sample's randomness.
        - `cond`: what the sample is conditioned on.
        - `trajectory`: whether to give the path from noise to data too.
        """

    def levels(
        self, denoiser: AbstractDenoiser, shape: tuple[int, ...]
    ) -> np.ndarray | None:
        """Falling noise levels from where sampling begins to where it stops.

        In units of the data's standard deviation, for examples of a shape. `None` where
        a sampler has none.
        """
        return None

    def draw_many(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        keys: Key[Array, " num"],
        cond: PyTree = None,
        trajectory: bool = False,
    ) -> Draw:
        """One sample for each key, and for each row of `cond`."""

        def one(key, cond):
            return self.draw(denoiser, shape, key=key, cond=cond, trajectory=trajectory)

        return jax.vmap(one)(keys, cond)

    def __call__(
        self,
        denoiser: AbstractDenoiser,
        shape: tuple[int, ...],
        *,
        key: PRNGKey,
        cond: Cond = None,
    ) -> Float[Array, "..."]:
        """One sample, NaN if the solver failed (raising inside jit can hang)."""
        check_key(key)
        out = self.draw(denoiser, shape, key=key, cond=cond)
        return jnp.where(out.failed, jnp.nan, out.x_0)


def begin(denoiser, level, key, shape, cond) -> Float[Array, "..."]:
    """One standardised example at the first level, of its own distribution there.

    **Arguments:** `denoiser` is the user's, of data in any units.
    """
    unit, units = denoiser.standardised()
    law = last_level(unit, level, shape, cond, known=units.known)
    return law.decode(jax.random.normal(key, shape))


def finish(
    denoiser, x, levels, path, cond, num_evaluations, failed: bool | Array = False
) -> Draw:
    """The last step, from the last noise level to the data: the denoiser itself.

    **Arguments:** `denoiser` is the user's; `x` is standardised, at the last level;
    `path` holds x at all levels, or is `None`.
    """
    unit, units = denoiser.standardised()
    last = jnp.log(jnp.asarray(levels[-1], x.dtype))
    x_0 = units.to_data(at_noise_level(unit, x, last, cond))
    told = None
    if path is not None:
        path = jax.vmap(units.to_data)(path)
        told = jnp.asarray(levels, x.dtype)
    count, failed = jnp.asarray(num_evaluations), jnp.asarray(failed)
    return Draw(x_0, count, failed, path, told)


def sample(
    denoiser: AbstractDenoiser,
    sampler: AbstractSampler,
    *,
    key: PRNGKey,
    num: int,
    shape: tuple[int, ...],
    cond: PyTree = None,
    batch_size: int | None = None,
    trajectory: bool = False,
    progress: bool = False,
    layout: Layout | None = None,
) -> Draw:
    """Draws `num` samples in one dispatch.

    Sample i has the key `fold_in(key, i)`: it is the same whatever `num` and
    `batch_size`.

    ```python
    draws = sample(denoiser, ODESampler(), key=key, num=64, shape=(1, 28, 28))
    images, evaluations = draws.x_0, draws.num_evaluations.max()
    ```

    **Arguments:**

    - `denoiser`, `sampler`: model and method.
    - `key`: all randomness.
    - `num`: how many.
    - `shape`: of one example.
    - `cond`: one condition for each sample, along the leading axis of every leaf.
    - `batch_size`: how many are in memory at a time; all by default, or a twentieth
        with a progress bar.
    - `trajectory`: whether to give the path of each sample from noise to data.
    - `progress`: whether to show a progress bar on standard error. Each batch is then a
        dispatch of its own.
    - `layout`: devices that share the samples of a batch.

    **Returns:** a `Draw` with leading axis `num`.

    **Raises:** `RuntimeError` when the solver gave up on a sample or a sample is not
    finite, with the step at which that began; `ValueError` for a `cond` of another
    length or shape, or an unknown class.
    """
    check_denoiser(denoiser)
    check_kind("sampler", sampler, AbstractSampler, "give a sampler, ExpAB(18) say")
    check_key(key)
    check_count("num", num, "draw at least one sample")
    shape = as_shape(shape)
    _check_untraced((denoiser, sampler, key, cond))
    check_rows(cond, num)
    check_condition(denoiser, cond)
    check_given(denoiser, cond)
    held = hold_schedules(denoiser)
    levels = sampler.levels(denoiser, shape)
    if levels is not None:
        check_start(denoiser, held, float(levels[0]), shape, cond)
        check_noisy_end(denoiser, held, float(levels[0]), shape, cond)
    draws = over_rows(
        _Draws(sampler, key, shape, trajectory),
        held,
        (jnp.arange(num, dtype=jnp.uint32), cond),
        batch_size=batch_size,
        progress=progress,
        layout=layout,
    )
    _check(draws, held, sampler, key, cond, shape)
    return draws


class _Draws(eqx.Module):
    """Draws a sample for each index and condition."""

    sampler: AbstractSampler
    key: PRNGKey
    shape: tuple[int, ...] = eqx.field(static=True)
    trajectory: bool = eqx.field(static=True)

    def __call__(self, denoiser, rows):
        index, cond = rows
        keys = jax.vmap(lambda i: jax.random.fold_in(self.key, i))(index)
        return self.sampler.draw_many(
            denoiser, self.shape, keys=keys, cond=cond, trajectory=self.trajectory
        )


def _check_untraced(arguments) -> None:
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arguments)):
        raise ValueError(
            "sample looks at its draws on the host and cannot be traced by jit, grad "
            "or vmap. Inside them write jax.vmap(lambda key: sampler(denoiser, "
            "shape, key=key))(jax.random.split(key, num))"
        )


def _check(draws, held, sampler, key, cond, shape) -> None:
    # On the host: raising from inside a computation hangs on several devices.
    failed = np.asarray(draws.failed)
    finite = np.isfinite(np.asarray(draws.x_0)).reshape(failed.size, -1).all(axis=1)
    if finite.all() and not failed.any():
        return
    first = int(np.argmax(failed | ~finite))
    key = jax.random.fold_in(key, first)
    cond = jax.tree.map(lambda leaf: leaf[first], cond)
    place = _first_bad(held, sampler, key, cond, shape, failed[first])
    if place is not None:
        step, steps, level = place
        raise RuntimeError(
            f"{(failed | ~finite).sum()} of {finite.size} samples are not finite, "
            f"first sample {first}: the denoiser gave NaN or infinity, there at step "
            f"{step} of {steps}, noise level {level:.3g}. Look at its parameters and "
            f"at the last training losses.{_about(cond)}"
        )
    raise RuntimeError(
        f"the solver reached its maximum of steps for {failed.sum()} of {failed.size} "
        f"samples, first sample {first}. Raise max_steps, loosen rtol and atol, or "
        "raise level_min: an untrained or diverged network makes the equation stiff."
    )


def _about(cond):
    classes = [
        np.asarray(leaf)
        for leaf in jax.tree.leaves(cond)
        if jnp.issubdtype(leaf.dtype, jnp.integer)
    ]
    if not classes:
        return ""
    listing = ", ".join(str(np.ravel(leaf)[:4].tolist()) for leaf in classes)
    return (
        f" Or the network has no such class as in the sample's cond, {listing}: a "
        "table gives NaN for a row that it does not have."
    )


def _first_bad(held, sampler, key, cond, shape, failed):
    """Step, steps and noise level at which values are first not finite."""

    @eqx.filter_jit
    def follow(held, key, cond):
        denoiser = free_schedules(held)
        out = sampler.draw(denoiser, shape, key=key, cond=cond, trajectory=True)
        unit, units = denoiser.standardised()
        outputs = jax.vmap(
            lambda x, level: at_noise_level(
                unit, units.to_unit(x), jnp.log(level), cond
            )
        )(out.path, out.levels)
        return out.path, outputs, out.levels

    path, outputs, levels = (np.asarray(a) for a in follow(held, key, cond))
    for step, level in enumerate(levels):
        if not np.isfinite(path[step]).all():
            # A solver that gave up saves no more, and that reads as infinity.
            return None if failed else (step, len(levels), float(level))
        if not np.isfinite(outputs[step]).all():
            return step + 1, len(levels), float(level)
    return None if failed else (len(levels), len(levels), float(levels[-1]))
