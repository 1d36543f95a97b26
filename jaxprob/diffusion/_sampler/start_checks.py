"""Warnings of a first noise level that is too low, and of an undefined scale."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp

from .._denoiser.denoiser import AbstractDenoiser, at_level
from .._denoiser.last_level import last_level
from .._schedule.constants import free_schedules

_DRAWS = 8
_NATS = 0.05


def check_start(denoiser: AbstractDenoiser, held, level: float, shape, cond) -> None:
    """Warn if samples begin far from the denoiser's distribution.

    The denoiser is evaluated only where this is possible: where the data are not far
    below the noise of the first level, or a denoiser does not define their scale.

    **Arguments:**

    - `denoiser`, `held`: the model, and what `hold_schedules` returns for it.
    - `level`: the first noise level, in units of the data's standard deviation.
    - `shape`: of one example.
    - `cond`: conditions of all examples; the first is used.
    """
    known = denoiser.standardised()[1].known
    cond = jax.tree.map(lambda leaf: leaf[0], cond)
    # The data of one condition may spread much less than all of them.
    if not known and not jax.tree.leaves(cond):
        # High enough for any data of unit scale, and low enough that an error of the
        # network does not look like a variance.
        _check_scale(denoiser, float(_scale(held, min(level, 10.0), shape, cond)))
    if level**2 < 4.0 * math.prod(shape):
        _check_level(denoiser, level, float(_divergence(held, level, shape, cond)))


def _check_scale(denoiser, std):
    if 0.2 < std < 5.0 or not math.isfinite(std):
        return
    name = type(denoiser).__name__
    warnings.warn(
        f"{name} does not define the scale of its data, and its answers are those for "
        f"a standard deviation of {std:.2g}. Noise levels are then those of data of "
        f"standard deviation 1: define {name}.standardised(), or give "
        "Preconditioned(net, schedule, sigma_data=...)",
        stacklevel=5,
    )


def _check_level(denoiser, level, nats):
    if not nats > _NATS:
        return
    warnings.warn(
        f"the first noise level, of {type(denoiser.schedule).__name__}, is {level:.3g} "
        "standard deviations of the data. Samples begin there at a Gaussian with the "
        "mean and covariance of the denoiser's answers, and the distribution of the "
        f"denoiser is up to {nats:.2g} nats from it: samples will be biased as much. "
        "Take a schedule that ends at a higher level",
        stacklevel=5,
    )


@eqx.filter_jit
def _scale(held, level, shape, cond):
    """Return the root mean variance of the data, by the denoiser's slopes."""
    unit, _ = free_schedules(held).standardised()
    start = last_level(unit, level, shape, cond, known=False)
    total = jnp.sum(start.extra) + math.prod(shape) * (start.variance - level**2)
    return jnp.sqrt(jnp.maximum(total / math.prod(shape), 0.0))


@eqx.filter_jit
def _divergence(held, level, shape, cond):
    """Return a bound of the divergence of the Gaussian from the denoiser's."""
    unit, units = free_schedules(held).standardised()
    start = last_level(unit, level, shape, cond, known=units.known)

    def one(key):
        x = start.decode(jax.random.normal(key, shape))
        x_0 = at_level(unit, x, level, cond)
        return start.mismatch((x_0 - x) / level**2 - start.score(x)) ** 2 / 2.0

    return jnp.mean(jax.vmap(one)(jax.random.split(jax.random.key(1), _DRAWS)))
