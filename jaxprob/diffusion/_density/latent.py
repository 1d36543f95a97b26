"""The flow as an invertible map between data and noise."""

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser, check_denoiser
from .._denoiser.last_level import last_level
from .._sampler.ode import ODESampler
from .._schedule.argument_checks import as_example, check_kind
from .._schedule.constants import free_schedules, hold_schedules
from .._types import Cond, Numbers, Scalar
from ..nn import check_given


def encode(
    denoiser: AbstractDenoiser,
    x: Numbers,
    *,
    cond: Cond = None,
    sampler: ODESampler | None = None,
) -> Float[Array, "..."]:
    """Return the standard normal noise that the probability flow pairs with `x`.

    NaN if the solver gives up.

    **Arguments:**

    - `denoiser`: the model.
    - `x`: one example.
    - `cond`: its condition.
    - `sampler`: whose solver, steps and levels are used; `ODESampler()` by default.
    """
    x = as_example("x", x)
    sampler, levels = _checked(sampler, denoiser, x.shape, cond)
    return _encode(hold_schedules(denoiser), x, cond, sampler, levels)


@eqx.filter_jit
def _encode(held, x, cond, sampler, levels):
    (unit, units), (high, low) = free_schedules(held).standardised(), levels
    x = units.to_unit(x)
    end, _, failed = sampler.flow(unit, x, low, high, cond=cond)
    start = last_level(unit, high, x.shape, cond, known=units.known, dtype=x.dtype)
    return jnp.where(failed, jnp.nan, start.encode(end))


def decode(
    denoiser: AbstractDenoiser,
    latent: Numbers,
    *,
    cond: Cond = None,
    sampler: ODESampler | None = None,
) -> Float[Array, "..."]:
    """Return the data that the probability flow pairs with noise.

    It is the inverse of `encode`, and NaN if the solver gives up.

    **Arguments:**

    - `latent`: standard normal noise, of the shape of an example.
    - the others: as in `encode`.
    """
    latent = as_example("latent", latent)
    sampler, levels = _checked(sampler, denoiser, latent.shape, cond)
    return _decode(hold_schedules(denoiser), latent, cond, sampler, levels)


@eqx.filter_jit
def _decode(held, z, cond, sampler, levels):
    (unit, units), (high, low) = free_schedules(held).standardised(), levels
    start = last_level(unit, high, z.shape, cond, known=units.known, dtype=z.dtype)
    end, _, failed = sampler.flow(unit, start.decode(z), high, low, cond=cond)
    return jnp.where(failed, jnp.nan, units.to_data(end))


# Beyond this cosine rounding loses the plane of both: sin(angle) is 1e-3 here.
_OPPOSITE = -1.0 + 1e-6


def _checked(sampler, denoiser, shape, cond):
    check_denoiser(denoiser)
    check_given(denoiser, cond)
    sampler = ODESampler() if sampler is None else sampler
    check_kind("sampler", sampler, ODESampler, "give an ODESampler(...)")
    levels = sampler.levels(denoiser, shape)
    return sampler, (float(levels[0]), float(levels[-1]))


def interpolate(a: Numbers, b: Numbers, weight: float | Scalar) -> Float[Array, "..."]:
    r"""Return a point between two latents on the sphere, near which noise lies.

    $$\frac{\sin((1 - w)\theta)\, a + \sin(w \theta)\, b}{\sin \theta}$$

    A straight line passes through points far too near the origin to be noise.

    Reference: *Denoising Diffusion Implicit Models*, Song et al., 2021, section 5.3.

    **Arguments:**

    - `a`, `b`: latents.
    - `weight`: w in [0, 1]; 0 gives a.

    **Raises:** `ValueError` for a latent of zeros, or two that are opposite, between
    which there is no unique way. While traced, as in jit, these give NaN.
    """
    a, b = as_example("a", a), as_example("b", b)
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    _check_directions(cosine)
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    angle = jnp.where(cosine < _OPPOSITE, jnp.nan, angle)
    # Nearly parallel: the limit is the straight line.
    near = angle < 1e-3
    safe = jnp.where(near, 1.0, angle)
    first = jnp.where(
        near, 1.0 - weight, jnp.sin((1.0 - weight) * safe) / jnp.sin(safe)
    )
    second = jnp.where(near, weight, jnp.sin(weight * safe) / jnp.sin(safe))
    return first * a + second * b


def _check_directions(cosine):
    if isinstance(cosine, Tracer):
        return
    if jnp.isnan(cosine):
        raise ValueError(
            "a or b is zero or not finite: noise has a direction, so give latents as "
            "encode or jax.random.normal make them"
        )
    if cosine < _OPPOSITE:
        raise ValueError(
            "a and b are opposite, and every half circle leads from one to the other: "
            "go by way of a third latent"
        )
