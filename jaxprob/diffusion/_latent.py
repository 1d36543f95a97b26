"""Data as noise and back: the flow as an invertible map."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._denoiser import AbstractDenoiser
from ._grids import level_range
from ._ode import ODESampler
from ._types import Cond, Scalar


def encode(
    denoiser: AbstractDenoiser,
    x: Float[Array, "*shape"],
    *,
    cond: Cond = None,
    sampler: ODESampler | None = None,
) -> Float[Array, "*shape"]:
    """The noise, standard normal, that the probability flow pairs with `x`.

    NaN if the solver gives up.

    **Arguments:**

    - `denoiser`: the model.
    - `x`: one example.
    - `cond`: its condition.
    - `sampler`: whose solver, tolerances and levels are used.
    """
    sampler = ODESampler() if sampler is None else sampler
    high, low = level_range(denoiser.schedule, sampler.level_min, sampler.level_max)
    end, _, failed = sampler.flow(denoiser, x, low, high, cond=cond)
    return jnp.where(failed, jnp.nan, end / high)


def decode(
    denoiser: AbstractDenoiser,
    latent: Float[Array, "*shape"],
    *,
    cond: Cond = None,
    sampler: ODESampler | None = None,
) -> Float[Array, "*shape"]:
    """The data that the probability flow pairs with noise; the inverse of `encode`."""
    sampler = ODESampler() if sampler is None else sampler
    high, low = level_range(denoiser.schedule, sampler.level_min, sampler.level_max)
    end, _, failed = sampler.flow(denoiser, high * latent, high, low, cond=cond)
    return jnp.where(failed, jnp.nan, end)


def interpolate(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"], weight: float | Scalar
) -> Float[Array, "*shape"]:
    r"""Between two latents along the sphere, where noise of many dimensions lies.

    $$\frac{\sin((1 - w)\theta)\, a + \sin(w \theta)\, b}{\sin \theta}$$

    A straight line passes through points far too near the origin to be noise.

    Reference: *Denoising Diffusion Implicit Models*, Song et al., 2021, section 5.3.

    **Arguments:**

    - `a`, `b`: latents.
    - `weight`: w in [0, 1]; 0 gives a.
    """
    cosine = jnp.vdot(a, b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    # Nearly parallel: the limit is the straight line.
    near = angle < 1e-3
    safe = jnp.where(near, 1.0, angle)
    first = jnp.where(
        near, 1.0 - weight, jnp.sin((1.0 - weight) * safe) / jnp.sin(safe)
    )
    second = jnp.where(near, weight, jnp.sin(weight * safe) / jnp.sin(safe))
    return first * a + second * b
