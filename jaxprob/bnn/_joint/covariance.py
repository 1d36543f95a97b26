"""Covariance matrices of a Gaussian over all weights, in forms with an inverse."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular
from jaxtyping import Array, Float

from ..._types import PRNGKey


class AbstractCovariance(eqx.Module):
    r"""Base class of the forms of $\Sigma$ that a `GaussianPrior` can have."""

    @abc.abstractmethod
    def draw(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        r"""Return a draw from $\mathcal N(0, \Sigma)$."""

    @abc.abstractmethod
    def variance(self) -> Float[Array, " dim"]:
        r"""Return the diagonal of $\Sigma$."""

    @abc.abstractmethod
    def precision(self) -> Float[Array, "dim dim"]:
        r"""Return $\Sigma^{-1}$ as a dense matrix, for up to a few thousand weights."""

    @abc.abstractmethod
    def precision_diagonal(self) -> Float[Array, " dim"]:
        r"""Return the diagonal of $\Sigma^{-1}$."""

    @abc.abstractmethod
    def log_det(self) -> Float[Array, ""]:
        r"""Return $\log |\Sigma|$."""

    @abc.abstractmethod
    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        r"""Return $\delta^\top \Sigma^{-1} \delta$."""

    @abc.abstractmethod
    def scaled(self, factor: float | Float[Array, ""]) -> Any:
        r"""Return a number times $\Sigma$."""

    @property
    def is_diagonal(self) -> bool:
        """True if the weights are independent."""
        return False


class DiagonalCovariance(AbstractCovariance):
    """Independent weights.

    **Arguments:**

    - `scale`: standard deviations.
    """

    scale: Float[Array, " dim"]

    def draw(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        return self.scale * jax.random.normal(key, self.scale.shape, self.scale.dtype)

    def variance(self) -> Float[Array, " dim"]:
        return self.scale**2

    def precision(self) -> Float[Array, "dim dim"]:
        return jnp.diag(self.precision_diagonal())

    def precision_diagonal(self) -> Float[Array, " dim"]:
        return 1.0 / self.scale**2

    def log_det(self) -> Float[Array, ""]:
        return 2.0 * jnp.sum(jnp.log(self.scale))

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum((delta / self.scale) ** 2)

    def scaled(self, factor: float | Float[Array, ""]) -> "DiagonalCovariance":
        return DiagonalCovariance(self.scale * factor**0.5)

    @property
    def is_diagonal(self) -> bool:
        return True


class DenseCovariance(AbstractCovariance):
    r"""$\Sigma = L L^\top$, for up to a few thousand weights.

    **Arguments:**

    - `root`: $L$, lower triangular.
    """

    root: Float[Array, "dim dim"]

    def draw(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        noise = jax.random.normal(key, self.root.shape[:1], self.root.dtype)
        return self.root @ noise

    def variance(self) -> Float[Array, " dim"]:
        return jnp.sum(self.root**2, axis=1)

    def precision(self) -> Float[Array, "dim dim"]:
        inverse = self._inverse_root()
        return inverse.T @ inverse

    def precision_diagonal(self) -> Float[Array, " dim"]:
        return jnp.sum(self._inverse_root() ** 2, axis=0)

    def log_det(self) -> Float[Array, ""]:
        return 2.0 * jnp.sum(jnp.log(jnp.diag(self.root)))

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(solve_triangular(self.root, delta, lower=True) ** 2)

    def scaled(self, factor: float | Float[Array, ""]) -> "DenseCovariance":
        return DenseCovariance(self.root * factor**0.5)

    def _inverse_root(self):
        identity = jnp.eye(len(self.root), dtype=self.root.dtype)
        return solve_triangular(self.root, identity, lower=True)


class LowRankCovariance(AbstractCovariance):
    r"""$\Sigma = D (I + U^\top U) D$ with $D = \mathrm{diag}(\sigma)$.

    **Arguments:**

    - `scale`: $\sigma$, positive.
    - `factor`: $U$, with few rows.
    """

    scale: Float[Array, " dim"]
    factor: Float[Array, "rank dim"]

    def draw(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        own_key, shared_key = jax.random.split(key)
        own = jax.random.normal(own_key, self.scale.shape, self.scale.dtype)
        shared = jax.random.normal(shared_key, self.factor.shape[:1], self.scale.dtype)
        return self.scale * (own + shared @ self.factor)

    def variance(self) -> Float[Array, " dim"]:
        return self.scale**2 * (1.0 + jnp.sum(self.factor**2, axis=0))

    def precision(self) -> Float[Array, "dim dim"]:
        identity = jnp.eye(self.scale.size, dtype=self.scale.dtype)
        inner = identity - self.factor.T @ self._solved()
        return inner / self.scale[:, None] / self.scale[None]

    def precision_diagonal(self) -> Float[Array, " dim"]:
        inner = 1.0 - jnp.sum(self.factor * self._solved(), axis=0)
        return inner / self.scale**2

    def log_det(self) -> Float[Array, ""]:
        """Return it by the matrix determinant lemma, without a dense matrix."""
        inner = 2.0 * jnp.sum(jnp.log(jnp.diag(self._inner_root())))
        return 2.0 * jnp.sum(jnp.log(self.scale)) + inner

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return it by Woodbury's identity."""
        white = delta / self.scale
        inside = self.factor @ white
        return white @ white - inside @ cho_solve((self._inner_root(), True), inside)

    def scaled(self, factor: float | Float[Array, ""]) -> "LowRankCovariance":
        return LowRankCovariance(self.scale * factor**0.5, self.factor)

    def _solved(self):
        r"""$(I + U U^\top)^{-1} U$."""
        return cho_solve((self._inner_root(), True), self.factor)

    def _inner_root(self):
        identity = jnp.eye(len(self.factor), dtype=self.factor.dtype)
        return jnp.linalg.cholesky(identity + self.factor @ self.factor.T)
