"""A density of one number, tabulated along its probability flow."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._types import PRNGKey

# Gauss and Legendre's rule on [0, 1], in each interval between knots.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(5)
_NODES, _WEIGHTS = (_NODES + 1.0) / 2.0, _WEIGHTS / 2.0
_STEEPEST = 1e6


class FlowTable(dist.Distribution):
    r"""The distribution whose increasing map to a standard normal is tabulated.

    In one dimension the probability flow is an increasing map $z(y)$, so that

    $$F(y) = \Phi(z(y)), \qquad p(y) = \phi(z(y))\, z'(y), \qquad
      F^{-1}(q) = z^{-1}(\Phi^{-1}(q)).$$

    Between knots z is the rational-quadratic spline with the given values and slopes,
    which is increasing and has an inverse in closed form; beyond them it is linear. The
    density integrates to one, and its distribution function, quantiles and draws are
    those of that density. A normal distribution is represented exactly.

    Reference: *Neural Spline Flows*, Durkan, Bekasov, Murray and Papamakarios, 2019,
    equations 4 to 8.

    **Arguments:**

    - `knots`: y, increasing along the last axis.
    - `latents`: z at the knots.
    - `log_slopes`: $\log z'$ at the knots.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "knots": constraints.real_vector,
        "latents": constraints.real_vector,
        "log_slopes": constraints.real_vector,
    }
    reparametrized_params: ClassVar[list[str]] = ["knots", "latents", "log_slopes"]

    def __init__(
        self,
        knots: Float[Array | np.ndarray, "*batch knots"],
        latents: Float[Array | np.ndarray, "*batch knots"],
        log_slopes: Float[Array | np.ndarray, "*batch knots"],
        *,
        validate_args: bool | None = None,
    ):
        self.knots = jnp.asarray(knots)
        self.latents = jnp.asarray(latents)
        self.log_slopes = jnp.asarray(log_slopes)
        batch_shape = self.knots.shape[:-1]
        super().__init__(batch_shape=batch_shape, validate_args=validate_args)

    @property
    def support(self) -> Any:
        return constraints.real

    def log_prob(self, value: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        z, log_slope = self._each(_forward, value)
        return norm.logpdf(z) + log_slope

    def cdf(self, value: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        return norm.cdf(self._each(_forward, value)[0])

    def icdf(self, q: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        return self._each(_inverse, norm.ppf(jnp.asarray(q, self.knots.dtype)))

    def sample(
        self, key: PRNGKey, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "..."]:
        shape = sample_shape + self.batch_shape
        return self._each(_inverse, jax.random.normal(key, shape, self.knots.dtype))

    @property
    def _table(self):
        return self.knots, self.latents, self.log_slopes

    def _each(self, function, values):
        values = jnp.asarray(values, self.knots.dtype)
        shape = jnp.broadcast_shapes(values.shape, self.batch_shape)
        table = (jnp.broadcast_to(a, shape + a.shape[-1:]) for a in self._table)
        return function(jnp.broadcast_to(values, shape), *table)

    @property
    def mean(self) -> Float[Array, "*batch"]:
        return _moments(*self._table)[0]

    @property
    def variance(self) -> Float[Array, "*batch"]:
        return _moments(*self._table)[1]


def _interval(index, knots, latents, log_slopes):
    """Return ends and widths of an interval, and slopes relative to its mean slope."""
    width, height = jnp.diff(knots)[index], jnp.diff(latents)[index]
    log_mean = jnp.log(height) - jnp.log(width)
    most = float(np.log(_STEEPEST))
    low = jnp.exp(jnp.clip(log_slopes[index] - log_mean, -most, most))
    high = jnp.exp(jnp.clip(log_slopes[index + 1] - log_mean, -most, most))
    return knots[index], latents[index], width, height, log_mean, low, high


def _spline(t, low, high):
    """Return the height in [0, 1] at t in [0, 1], and the logarithm of its slope."""
    inside, bottom = t * (1.0 - t), 1.0 + (low + high - 2.0) * t * (1.0 - t)
    top = high * t**2 + 2.0 * inside + low * (1.0 - t) ** 2
    return (t**2 + low * inside) / bottom, jnp.log(top) - 2.0 * jnp.log(bottom)


def _forward_one(y, knots, latents, log_slopes):
    index = jnp.clip(jnp.searchsorted(knots, y) - 1, 0, len(knots) - 2)
    y0, z0, width, height, log_mean, low, high = _interval(
        index, knots, latents, log_slopes
    )
    t = jnp.clip((y - y0) / width, 0.0, 1.0)
    value, log_slope = _spline(t, low, high)
    z, log_slope = z0 + height * value, log_mean + log_slope
    for end, beyond in ((0, y < knots[0]), (-1, y > knots[-1])):
        line = latents[end] + jnp.exp(log_slopes[end]) * (y - knots[end])
        z = jnp.where(beyond, line, z)
        log_slope = jnp.where(beyond, log_slopes[end], log_slope)
    return z, log_slope


def _inverse_one(z, knots, latents, log_slopes):
    index = jnp.clip(jnp.searchsorted(latents, z) - 1, 0, len(knots) - 2)
    y0, z0, width, height, _, low, high = _interval(index, knots, latents, log_slopes)
    value = jnp.clip((z - z0) / height, 0.0, 1.0)
    # Equations 6 to 8, in the form of the root without cancellation.
    bend = value * (low + high - 2.0)
    a, b = 1.0 - low + bend, low - bend
    root = jnp.sqrt(jnp.maximum(b**2 + 4.0 * a * value, 0.0))
    y = y0 + width * jnp.clip(2.0 * value / (b + root), 0.0, 1.0)
    for end, beyond in ((0, z < latents[0]), (-1, z > latents[-1])):
        line = knots[end] + jnp.exp(-log_slopes[end]) * (z - latents[end])
        y = jnp.where(beyond, line, y)
    return y


def _moments_one(knots, latents, log_slopes):
    """Return mean and variance: quadrature between knots, closed forms beyond."""
    centre = knots[len(knots) // 2]
    nodes = jnp.asarray(_NODES, knots.dtype)
    weights = jnp.asarray(_WEIGHTS, knots.dtype)

    def between(index):
        y0, z0, width, height, log_mean, low, high = _interval(
            index, knots, latents, log_slopes
        )
        value, log_slope = _spline(nodes, low, high)
        mass = weights * width * jnp.exp(log_mean + log_slope)
        mass = mass * norm.pdf(z0 + height * value)
        left = y0 - centre + width * nodes
        return jnp.stack([mass.sum(), (mass * left).sum(), (mass * left**2).sum()])

    total = jax.vmap(between)(jnp.arange(len(knots) - 1)).sum(0)
    for end, sign in ((0, -1.0), (-1, 1.0)):
        z, spread = sign * latents[end], sign * jnp.exp(-log_slopes[end])
        mass, first, second = _normal_tail(z)
        left = knots[end] - centre
        total = total + jnp.stack(
            [
                mass,
                left * mass + spread * first,
                left**2 * mass + 2.0 * left * spread * first + spread**2 * second,
            ]
        )
    mean, square = total[1] / total[0], total[2] / total[0]
    return centre + mean, jnp.maximum(square - mean**2, 0.0)


def _normal_tail(z):
    r"""Return $E[(x - z)^k; x > z]$ of a standard normal x, for k = 0, 1, 2."""
    mass, density = norm.sf(z), norm.pdf(z)
    return mass, density - z * mass, (1.0 + z**2) * mass - z * density


_forward = jnp.vectorize(_forward_one, signature="(),(k),(k),(k)->(),()")
_inverse = jnp.vectorize(_inverse_one, signature="(),(k),(k),(k)->()")
_moments = jnp.vectorize(_moments_one, signature="(k),(k),(k)->(),()")
