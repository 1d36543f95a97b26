r"""The distribution of the last noise level, at which samples begin.

At level s the distribution of $x_0 + s z$ is not $N(0, s^2)$. It has the mean and the
covariance of the data, $N(m, s^2 I + C)$, exactly for Gaussian data and nearly for
others if s is large. For standardised images of n pixels, C has an eigenvalue of a few
tenths of n (brightness), and no usual end of a schedule is far above its root.

Mean and covariance are read off the denoiser. For Gaussian data it is linear there,
$D(x) = m + J (x - m)$ with $J = C (C + s^2 I)^{-1}$, so that $D$ has $m$ as its fixed
point and $s^2 I + C = s^2 (I - J)^{-1}$.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import Cond, Scalar
from .denoiser import AbstractDenoiser, at_level

# Bounds of what standardised data can have: an eigenvalue relative to their trace, a
# slope of the denoiser, and a root mean square of their mean.
_MOST_VARIANCE = 4.0
_LARGEST_SLOPE = 0.999
_LARGEST_MEAN = 10.0

RANK = 4
"""Leading directions of the covariance in a sampler, beside an isotropic rest."""


class LastLevel(eqx.Module):
    r"""$N(m,\ v I + U^T \mathrm{diag}(e)\, U)$, U with orthonormal rows.

    **Fields:** `mean` of one example's shape, `variance` v, `basis` U, `extra` e.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, ""]
    basis: Float[Array, "rank dim"]
    extra: Float[Array, " rank"]

    def decode(self, noise: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the point of standard normal noise."""
        return self.mean + self._times_root(noise)

    def encode(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the noise of a point; the inverse of `decode`."""
        root = jnp.sqrt(self.variance)
        return self._apply(x - self.mean, 1.0 / root, 1.0 / self._roots())

    def log_prob(self, x: Float[Array, "..."]) -> Scalar:
        """Return the log-density of a point."""
        noise = self.encode(x)
        rest = x.size - len(self.extra)
        log_det = rest * jnp.log(self.variance) / 2.0 + jnp.sum(jnp.log(self._roots()))
        square = jnp.sum(noise**2)
        return -0.5 * square - log_det - 0.5 * x.size * math.log(2.0 * math.pi)

    def score(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Return the gradient of `log_prob`."""
        return -self._apply(
            x - self.mean, 1.0 / self.variance, 1.0 / (self.variance + self.extra)
        )

    def mismatch(self, difference: Float[Array, "..."]) -> Scalar:
        r"""$|V^{1/2} (\nabla \log p_s - \nabla \log \pi)|$, in nats.

        With $\pi$ this distribution and V its covariance, the mean square over another
        distribution $p_s$ bounds twice the divergence $KL(p_s\,\|\,\pi)$ (the
        log-Sobolev inequality of a Gaussian), and the mean square over $\pi$ bounds the
        variance of $\log p_s - \log \pi$ (Poincaré's inequality).

        **Arguments:**

        - `difference`: of the two scores, at one point.
        """
        return jnp.sqrt(jnp.sum(self._times_root(difference) ** 2))

    def _roots(self):
        return jnp.sqrt(self.variance + self.extra)

    def _times_root(self, noise):
        return self._apply(noise, jnp.sqrt(self.variance), self._roots())

    def _apply(self, x, outside, along):
        parts = self.basis @ x.ravel()
        inside = ((along - outside) * parts) @ self.basis
        return outside * x + inside.reshape(x.shape)


def last_level(
    denoiser: AbstractDenoiser,
    level: float,
    shape: tuple[int, ...],
    cond: Cond = None,
    *,
    known: bool = True,
    rank: int | None = None,
    dtype=None,
) -> LastLevel:
    """Return the distribution of the last noise level, read off a denoiser.

    The mean is the denoiser's answer. Of the covariance it has the leading eigenvectors
    and one variance for the rest. This takes about twenty evaluations of one example at
    most, which a `vmap` over keys does not multiply. It takes two where the level is so
    high that the covariance of standardised data does not matter.

    **Arguments:**

    - `denoiser`: of standardised data.
    - `level`: s, a number of the host.
    - `shape`: of one example.
    - `cond`: what the denoiser is conditioned on.
    - `known`: whether the data are known to be standardised. Slopes larger than such
        data can have are then treated as errors of the network.
    - `rank`: eigenvectors; by default as many as a sampler needs.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    dim = math.prod(shape)
    if rank is None:
        # An eigenvalue is at most the trace: the bias of a standard deviation is below
        # half of dim / level^2.
        rank = 0 if known and dim < 0.01 * level**2 else RANK
    rank = min(rank, dim)
    noise_key, basis_key, rest_key = jax.random.split(jax.random.key(0), 3)
    # Networks are trained on points with noise in them, so they are evaluated there.
    noise = jax.random.normal(noise_key, shape, dtype)

    def answer(x):
        return at_level(denoiser, x, level, cond)

    def mean_answer(mean):
        both = answer(mean + level * noise) + answer(mean - level * noise)
        return _shrunk(both / 2.0, known)

    mean = mean_answer(jnp.zeros(shape, dtype))
    if rank == 0:
        variance = jnp.asarray(level**2 + 1.0, dtype)
        return LastLevel(
            mean, variance, jnp.zeros((0, dim), dtype), jnp.zeros((0,), dtype)
        )
    point = mean + level * noise
    here = answer(point)

    def product(v):
        """Return J v by a difference as long as the noise, far above rounding."""
        return (answer(point + level * v.reshape(shape)) - here).ravel() / level

    products = jax.vmap(product)
    if rank == dim:
        basis = jnp.eye(dim, dtype=dtype)
    else:
        basis = _orthonormal(jax.random.normal(basis_key, (rank, dim), dtype))
        for _ in range(2):
            basis = _orthonormal(products(basis))
    small = basis @ products(basis).T
    slopes, rotation = jnp.linalg.eigh((small + small.T) / 2.0)
    basis = rotation.T @ basis
    most = _MOST_VARIANCE if known else math.inf
    along = _variance(slopes, level, most * dim)
    rest = jnp.zeros((), dtype)
    if rank < dim:
        probe = jax.random.normal(rest_key, (dim,), dtype)
        probe = probe - (basis @ probe) @ basis
        probe = probe / jnp.sqrt(jnp.sum(probe**2))
        rest = _variance(probe @ product(probe), level, most)
    # Derivatives of eigenvectors are infinite where eigenvalues are equal. The mean
    # keeps its derivatives, those of a fixed point.
    basis, along, rest = jax.lax.stop_gradient((basis, along, rest))
    start = LastLevel(mean, level**2 + rest, basis, along - rest)
    # One step of Newton's method for the fixed point: (I - J)^-1 is V / s^2.
    residual = mean_answer(mean) - mean
    shift = start._apply(
        residual, start.variance / level**2, (start.variance + start.extra) / level**2
    )
    mean = _shrunk(mean + shift, known)
    return LastLevel(mean, start.variance, start.basis, start.extra)


def _variance(slope, level, most):
    slope = jnp.clip(slope, 0.0, _LARGEST_SLOPE)
    return jnp.minimum(level**2 * slope / (1.0 - slope), most)


def _shrunk(mean, known):
    """Return the mean, cut to a size that standardised data can have."""
    if not known:
        return mean
    # The maximum stands inside the root, whose slope at zero is infinite.
    size = jnp.sqrt(jnp.maximum(jnp.mean(mean**2), 1.0))
    return mean * jnp.minimum(1.0, _LARGEST_MEAN / size)


def _orthonormal(rows):
    return jnp.linalg.qr(rows.T)[0].T
