"""Velocity fields between Gaussians and mixtures of them, in closed form."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._types import PRNGKey
from ..diffusion import AbstractVelocityField
from ._gaussian_mixture import GaussianMixture


class MixtureVelocityField(AbstractVelocityField):
    r"""The velocity of independent pairs from two mixtures of Gaussians.

    Component k of the source, $N(m_k, C_k)$, and l of the data, $N(n_l, D_l)$, give

    $$v_{kl} = n_l - m_k + (t D_l - (1 - t) C_k)\,S_{kl}^{-1} (x - \mu_{kl}), \qquad
      S_{kl} = (1 - t)^2 C_k + t^2 D_l,\quad \mu_{kl} = (1 - t) m_k + t n_l,$$

    and v is their mean with the responsibilities of $N(\mu_{kl}, S_{kl})$.

    **Arguments:**

    - `source`, `data`: the mixtures.
    """

    source: GaussianMixture
    data: GaussianMixture

    def velocity(
        self, x: Float[Array, " dim"], t, cond=None, *, key: PRNGKey | None = None
    ) -> Float[Array, " dim"]:
        t = jnp.asarray(t, x.dtype)

        def pair(w, m, c, v, n, d):
            mean, spread = (1.0 - t) * m + t * n, (1.0 - t) ** 2 * c + t**2 * d
            factor = jnp.linalg.cholesky(spread)
            whitened = jax.scipy.linalg.cho_solve((factor, True), x - mean)
            log_density = -0.5 * (x - mean) @ whitened
            log_density = log_density - jnp.sum(jnp.log(jnp.diag(factor)))
            slope = (t * d - (1.0 - t) * c) @ whitened
            return jnp.log(w) + jnp.log(v) + log_density, n - m + slope

        def components(mixture):
            return mixture.weights, mixture.means, mixture.covariances

        pairs = jax.vmap(
            lambda k: jax.vmap(lambda one: pair(*k, *one))(components(self.data))
        )(components(self.source))
        logits, velocities = pairs
        weights = jax.nn.softmax(logits.ravel())
        return weights @ velocities.reshape(len(weights), -1)


class TransportVelocityField(AbstractVelocityField):
    r"""The velocity of optimal transport between two Gaussians.

    The map $T(y) = n + A (y - m)$ with
    $A = C^{-1/2} (C^{1/2} D C^{1/2})^{1/2} C^{-1/2}$ carries $N(m, C)$ to $N(n, D)$
    along straight lines, so that

    $$v(x, t) = n - m + (A - I)\,((1 - t) I + t A)^{-1} (x - (1 - t) m - t n).$$

    Reference: *On a Class of Multidimensional Optimal Transportation Problems*,
    Olkin and Pukelsheim, 1982.

    **Arguments:**

    - `source`, `data`: mixtures of one component.
    """

    source: GaussianMixture
    data: GaussianMixture

    def __init__(self, source: GaussianMixture, data: GaussianMixture):
        if len(source.weights) != 1 or len(data.weights) != 1:
            raise ValueError(
                "optimal transport has a closed form between two Gaussians: give "
                "mixtures of one component"
            )
        self.source, self.data = source, data

    def slope(self) -> Float[Array, "dim dim"]:
        """Return A."""
        c, d = self.source.covariances[0], self.data.covariances[0]
        root = _root(c)
        inverse = jnp.linalg.inv(root)
        return inverse @ _root(root @ d @ root) @ inverse

    def transport(self, y: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """Return T(y)."""
        return self.data.means[0] + self.slope() @ (y - self.source.means[0])

    def velocity(
        self, x: Float[Array, " dim"], t, cond=None, *, key: PRNGKey | None = None
    ) -> Float[Array, " dim"]:
        t = jnp.asarray(t, x.dtype)
        m, n, slope = self.source.means[0], self.data.means[0], self.slope()
        eye = jnp.eye(len(x), dtype=x.dtype)
        back = jnp.linalg.solve((1.0 - t) * eye + t * slope, x - (1.0 - t) * m - t * n)
        return n - m + (slope - eye) @ back


def _root(matrix):
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T
