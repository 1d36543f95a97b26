"""The probability flow of a denoiser of one number, at knots."""

import math

import diffrax as dfx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._denoiser.denoiser import AbstractDenoiser
from .._denoiser.last_level import last_level
from .._sampler.flow import bent, flow_field, in_bent
from .._sampler.grid import level_range
from .._types import Cond

_LARGEST = 4.0
_COARSE = 33
_LEVEL_MIN = 0.002
_SHARE = 0.6  # of the knots that follow the mass; the others follow the line


def tabulate(
    denoiser: AbstractDenoiser,
    cond: Cond = None,
    *,
    num_knots: int,
    num_steps: int,
    dtype=None,
) -> tuple[Float[Array, " knots"], Float[Array, " knots"], Float[Array, " knots"]]:
    r"""Return y, the noise z that the flow pairs with it, and $\log dz/dy$ there.

    Noise of 33 quantiles is carried to the data first. Knots are then placed where both
    the quantiles and y advance, so that modes and the gaps between them have some, and
    carried back to noise. All of them are one system with shared steps.

    **Arguments:**

    - `denoiser`: of examples of shape (1,).
    - `cond`: its condition.
    - `num_knots`: number of rows of the table.
    - `num_steps`: steps of `diffrax.Tsit5` from noise to data, and back.
    """
    unit, units = denoiser.standardised()
    high, low = level_range(denoiser.schedule, _LEVEL_MIN, None)
    dtype = jnp.result_type(float) if dtype is None else dtype
    start = last_level(unit, high, (1,), cond, known=units.known, dtype=dtype)
    decode, encode = (
        lambda x, f=f: jax.vmap(f)(x[:, None])[:, 0]
        for f in (start.decode, start.encode)
    )

    def field(y, u):
        return jax.vmap(lambda y: flow_field(unit, y[None], u, cond)[0])(y)

    def way(state, rhs, first, final):
        points = bent(-math.log(first)), bent(-math.log(final))
        solution = dfx.diffeqsolve(
            dfx.ODETerm(lambda w, state, args: in_bent(rhs)(w, state)),
            dfx.Tsit5(),
            t0=jnp.asarray(points[0], dtype),
            t1=jnp.asarray(points[1], dtype),
            dt0=jnp.asarray((points[1] - points[0]) / num_steps, dtype),
            y0=state,
            max_steps=num_steps + 2,
            throw=False,
        )
        assert solution.ys is not None  # SaveAt(t1=True) is the default
        return jax.tree.map(lambda leaf: leaf[0], solution.ys)

    def with_slope(u, state):
        y, _ = state
        # Each knot is alone in its equation: ones give the diagonal of the Jacobian.
        return jax.jvp(lambda y: field(y, u), (y,), (jnp.ones_like(y),))

    high_growth, low_growth = math.hypot(1.0, high), math.hypot(1.0, low)
    z = jnp.linspace(-_LARGEST, _LARGEST, _COARSE, dtype=dtype)
    coarse = way(decode(z) / high_growth, lambda u, y: field(y, u), high, low)
    x = _placed(z, coarse * low_growth, num_knots)
    end, change = way((x / low_growth, jnp.zeros_like(x)), with_slope, low, high)
    latents = _increasing(encode(end * high_growth))
    unit_slope = jnp.diff(encode(jnp.arange(2.0, dtype=dtype)))
    log_slopes = change + math.log(high_growth / low_growth) + jnp.log(unit_slope)
    y = jax.vmap(units.to_data)(x[:, None])[:, 0]
    return y, latents, log_slopes - units.log_volume(x[:1])


def _placed(z, y, num):
    """Return knots that are equidistant along the graph of an increasing map."""
    y = _increasing(y)
    along = _SHARE * z / (z[-1] - z[0]) + (1.0 - _SHARE) * y / (y[-1] - y[0])
    return _increasing(jnp.interp(jnp.linspace(along[0], along[-1], num), along, y))


def _increasing(values):
    """Return the values in strict order, which rounding may have lost in a gap."""
    values = jax.lax.cummax(values)
    least = 4.0 * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    return values + least * jnp.arange(len(values), dtype=values.dtype)
