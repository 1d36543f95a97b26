"""The warning of a denoiser whose answers depend on nearly pure noise."""

import math
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp

from .._schedule.constants import free_schedules
from .denoiser import AbstractDenoiser, at_level

_DRAWS = 32

# Factor by which a denoiser multiplies its network's errors, above which it is tested.
_GAIN = 10.0

# Standard deviations of the data. An error of this size at the first level moves
# samples by a percent.
_SPREAD = 0.3


def check_noisy_end(
    denoiser: AbstractDenoiser, held, level: float, shape, cond
) -> None:
    r"""Warn if the answers at the first noise level depend on the noise too much.

    For data of unit variance the mean $E[x_0 \mid x_0 + s z]$ varies with z by at most
    $\sqrt{d}/s$ per coordinate: it is about the mean of the data. A network that
    predicts the noise, with an error of $\delta$, gives it with an error of $s \delta$,
    which a sampler carries down to the data.

    **Arguments:**

    - `denoiser`, `held`: the model, and what `hold_schedules` returns for it.
    - `level`: the first noise level, in units of the data's standard deviation.
    - `shape`: of one example.
    - `cond`: conditions of all examples; the first is used.
    """
    gain = float(denoiser.output_gain(level))
    if not gain > _GAIN:
        return
    cond = jax.tree.map(lambda leaf: leaf[0], cond)
    spread = float(_spread(held, level, shape, cond))
    exact = min(1.0, math.sqrt(math.prod(shape)) / level)
    if spread > _SPREAD + 2.0 * exact:
        warnings.warn(
            f"the denoiser multiplies an error of its network by {gain:.3g} at the "
            f"first noise level, {level:.3g}: its answers there differ between draws "
            f"of noise by {spread:.2g} standard deviations of the data, where they "
            "should hardly differ, and samples can come out far too wide. Train with "
            'Preconditioned(net, schedule, predict="edm"), or "v"; or train this '
            "network longer",
            stacklevel=4,
        )


@eqx.filter_jit
def _spread(held, level, shape, cond):
    """Return the root mean variance of the answers over draws of noise."""
    unit, _ = free_schedules(held).standardised()

    def one(key):
        x = math.hypot(1.0, level) * jax.random.normal(key, shape)
        return at_level(unit, x, level, cond)

    answers = jax.vmap(one)(jax.random.split(jax.random.key(2), _DRAWS))
    return jnp.sqrt(jnp.mean(jnp.var(answers, axis=0)))
