r"""Curvature of the log-likelihood in forms that can be factorised.

Each holds $G$, the sum over the data set of $J^\top H J$ (J the Jacobian of the output,
H the negative Hessian of the log-likelihood in it), and computes with the posterior
precision $\Lambda = G + \mathrm{diag}(\tau)$, where $\tau$ is the precision of the
prior.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PyTree

from ..._types import PRNGKey


class AbstractCurvature(eqx.Module):
    """Base class of the forms of $G$ that a Laplace approximation can use."""

    @abc.abstractmethod
    def root(self, tau: Float[Array, " dim"]) -> PyTree:
        r"""Return $\Lambda$ factorised: most of the work, done once for all draws."""

    @abc.abstractmethod
    def draw(self, root: PyTree, *, key: PRNGKey) -> Float[Array, " dim"]:
        r"""Return a draw from $\mathcal N(0, \Lambda^{-1})$."""

    @abc.abstractmethod
    def spread(
        self, root: PyTree, jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        r"""Return $J \Lambda^{-1} J^\top$."""

    @abc.abstractmethod
    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        r"""Return $\log |\Lambda|$, differentiable in $\tau$."""

    def sample(
        self, tau: Float[Array, " dim"], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        r"""Return one draw, without a root made before."""
        return self.draw(self.root(tau), key=key)

    def covariance(
        self, tau: Float[Array, " dim"], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        r"""Return one covariance, without a root made before."""
        return self.spread(self.root(tau), jacobian)

    @abc.abstractmethod
    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        r"""Return $\delta^\top \Lambda \delta$."""

    @abc.abstractmethod
    def scaled(self, factor: Float[Array, ""]) -> "AbstractCurvature":
        """Return a number times $G$."""


class FullCurvature(AbstractCurvature):
    """The whole matrix, for a few thousand weights at most."""

    matrix: Float[Array, "dim dim"]

    def root(self, tau: Float[Array, " dim"]) -> Float[Array, "dim dim"]:
        return jnp.linalg.cholesky(self.matrix + jnp.diag(tau))

    def draw(
        self, root: Float[Array, "dim dim"], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        noise = jax.random.normal(key, root.shape[:1], root.dtype)
        return solve_triangular(root, noise, trans=1, lower=True)

    def spread(
        self, root: Float[Array, "dim dim"], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        half = solve_triangular(root, jacobian.T, lower=True)
        return half.T @ half

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        return 2.0 * jnp.sum(jnp.log(jnp.diag(self.root(tau))))

    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        return delta @ (self.matrix @ delta + tau * delta)

    def scaled(self, factor: Float[Array, ""]) -> "FullCurvature":
        return FullCurvature(self.matrix * factor)


class DiagonalCurvature(AbstractCurvature):
    """The diagonal alone, for any number of weights, without correlations."""

    diagonal: Float[Array, " dim"]

    def root(self, tau: Float[Array, " dim"]) -> Float[Array, " dim"]:
        return jnp.sqrt(self.diagonal + tau)

    def draw(self, root: Float[Array, " dim"], *, key: PRNGKey) -> Float[Array, " dim"]:
        return jax.random.normal(key, root.shape, root.dtype) / root

    def spread(
        self, root: Float[Array, " dim"], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        half = jacobian / root[None]
        return half @ half.T

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(jnp.log(self.diagonal + tau))

    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        return jnp.sum((self.diagonal + tau) * delta**2)

    def scaled(self, factor: Float[Array, ""]) -> "DiagonalCurvature":
        return DiagonalCurvature(self.diagonal * factor)
