"""Gaussians over all random leaves, with correlations between them."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float, PyTree

from ..._random.keys import check_key
from ..._random.standard_normal import standard_normal
from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from .._joint.covariance import (
    AbstractCovariance,
    DenseCovariance,
    LowRankCovariance,
)
from .._joint.gaussian_prior import GaussianPrior
from .._weights.random_leaves import MIN_SCALE, Gaussian
from .._weights.scale import inverse_softplus
from .._weights.unconstrained import constrained, coordinates_of, log_volume
from .posterior import AbstractPosterior


class AbstractCorrelatedPosterior(AbstractPosterior):
    r"""Base class of $q(w) = \mathcal N(\mu, \Sigma)$ over all random leaves.

    Of a leaf whose prior has an edge it is the Gaussian of its unconstrained
    coordinates.

    **Fields:**

    - `params`: $\mu$ as a tree, `None` at leaves that are not random.
    - `rest`: all other leaves.
    """

    params: eqx.AbstractVar[PyTree]
    rest: eqx.AbstractVar[PyTree]

    @abc.abstractmethod
    def deviation(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        r"""Return a draw from $\mathcal N(0, \Sigma)$, differentiable in $\Sigma$."""

    @abc.abstractmethod
    def variance(self) -> Float[Array, " dim"]:
        r"""Return the diagonal of $\Sigma$."""

    @abc.abstractmethod
    def covariance(self) -> Float[Array, "dim dim"]:
        r"""Return $\Sigma$ as a dense matrix, for up to a few thousand weights."""

    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        r"""Return $\log |\Sigma|$."""

    @abc.abstractmethod
    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        r"""Return $\delta^\top \Sigma^{-1} \delta$."""

    def sample(self, *, key: PRNGKey) -> Model:
        return constrained(eqx.combine(self.coordinates(key=key), self.rest))

    def coordinates(self, *, key: PRNGKey) -> PyTree:
        """Draw the random leaves, in the coordinates of `params`."""
        check_key(key)
        vector, unravel = ravel(self.params)
        return unravel(vector + self.deviation(key=key))

    def mean(self) -> Model:
        return constrained(eqx.combine(self.params, self.rest))

    def log_prob(self, model: Model) -> Float[Array, ""]:
        values = coordinates_of(self.params, model)
        return self.log_density(values) - log_volume(values)

    def log_density(self, values: PyTree) -> Float[Array, ""]:
        """Return the log-density of coordinates, a tree like `params`."""
        delta = ravel(values)[0] - ravel(self.params)[0]
        constant = delta.size * math.log(2 * math.pi)
        return -0.5 * (constant + self.log_det() + self.quadratic(delta))

    def entropy(self) -> Float[Array, ""]:
        """Return the entropy of the coordinates in nats."""
        dim = ravel(self.params)[0].size
        return 0.5 * (dim * math.log(2 * math.pi * math.e) + self.log_det())

    @abc.abstractmethod
    def covariance_form(self) -> AbstractCovariance:
        r"""Return $\Sigma$ without $\mu$, in the form of this posterior."""

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        covariance = self.covariance_form().scaled(1.0 / (temperature or 1.0))
        return GaussianPrior(self.params, covariance)

    def marginals(self) -> PyTree:
        """Return the marginal distribution of each leaf's coordinates as a `Gaussian`.

        It determines the divergence from a prior that is independent in each entry.
        """
        scales = ravel(self.params)[1](jnp.sqrt(self.variance()))
        return jax.tree.map(Gaussian.of, self.params, scales)


class FullRankPosterior(AbstractCorrelatedPosterior):
    r"""$\mathcal N(\mu, L L^\top)$ with $L = \mathrm{diag}(\sigma) (I + F / \sqrt P)$.

    F is strictly lower triangular, and P is the number of weights. An optimiser takes
    steps of equal size in all numbers. F is in units of each weight's standard
    deviation, divided by $\sqrt P$, so that all its entries together change a draw as
    much as $\sigma$ does. In L itself, a step could be many times the standard
    deviation of a narrow weight.

    **Arguments:**

    - `params`, `rest`: as in `AbstractCorrelatedPosterior`.
    - `factor`: F, and on its diagonal the numbers whose softplus is $\sigma$. The
        entries above the diagonal are not used.
    """

    params: PyTree
    rest: PyTree
    factor: Float[Array, "dim dim"]

    @classmethod
    def of(
        cls, params: PyTree, rest: PyTree, scale: Float[Array, " dim"]
    ) -> "FullRankPosterior":
        """Return independent entries with these standard deviations."""
        return cls(params, rest, jnp.diag(inverse_softplus(scale)))

    @property
    def diagonal(self) -> Float[Array, " dim"]:
        """The diagonal of L, all positive."""
        return jnp.maximum(jax.nn.softplus(jnp.diag(self.factor)), MIN_SCALE)

    @property
    def root(self) -> Float[Array, "dim dim"]:
        """L."""
        below = jnp.tril(self.factor, -1) / math.sqrt(len(self.factor))
        identity = jnp.eye(len(below), dtype=below.dtype)
        return self.diagonal[:, None] * (below + identity)

    def deviation(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        noise = standard_normal(key, self.factor.shape[:1], self.factor.dtype)
        return self.root @ noise

    def variance(self) -> Float[Array, " dim"]:
        return jnp.sum(self.root**2, axis=1)

    def covariance(self) -> Float[Array, "dim dim"]:
        return self.root @ self.root.T

    def log_det(self) -> Float[Array, ""]:
        return 2.0 * jnp.sum(jnp.log(self.diagonal))

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(solve_triangular(self.root, delta, lower=True) ** 2)

    def covariance_form(self) -> DenseCovariance:
        return DenseCovariance(self.root)


class LowRankPosterior(AbstractCorrelatedPosterior):
    r"""$\mathcal N(\mu, D (I + U^\top U) D)$ with $D = \mathrm{diag}(\sigma)$.

    U has few rows, in units of each weight's standard deviation.

    **Arguments:**

    - `params`, `rest`: as in `AbstractCorrelatedPosterior`.
    - `rho`: the numbers whose softplus is $\sigma$.
    - `factor`: U.
    """

    params: PyTree
    rest: PyTree
    rho: Float[Array, " dim"]
    factor: Float[Array, "rank dim"]

    @property
    def scale(self) -> Float[Array, " dim"]:
        r"""$\sigma$."""
        return jnp.maximum(jax.nn.softplus(self.rho), MIN_SCALE)

    def deviation(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        own_key, shared_key = jax.random.split(key)
        own = standard_normal(own_key, self.rho.shape, self.rho.dtype)
        shared = standard_normal(shared_key, self.factor.shape[:1], self.rho.dtype)
        return self.scale * (own + shared @ self.factor)

    def variance(self) -> Float[Array, " dim"]:
        return self.scale**2 * (1.0 + jnp.sum(self.factor**2, axis=0))

    def covariance(self) -> Float[Array, "dim dim"]:
        inner = jnp.eye(self.rho.size, dtype=self.rho.dtype)
        inner = inner + self.factor.T @ self.factor
        return self.scale[:, None] * inner * self.scale[None]

    def log_det(self) -> Float[Array, ""]:
        """Return it by the matrix determinant lemma, without a dense matrix."""
        inner = 2.0 * jnp.sum(jnp.log(jnp.diag(self._inner_root())))
        return 2.0 * jnp.sum(jnp.log(self.scale)) + inner

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return it by Woodbury's identity."""
        white = delta / self.scale
        inside = self.factor @ white
        return white @ white - inside @ cho_solve((self._inner_root(), True), inside)

    def covariance_form(self) -> LowRankCovariance:
        return LowRankCovariance(self.scale, self.factor)

    def _inner_root(self):
        r"""Cholesky factor of $I + U U^\top$."""
        identity = jnp.eye(len(self.factor), dtype=self.factor.dtype)
        return jnp.linalg.cholesky(identity + self.factor @ self.factor.T)
