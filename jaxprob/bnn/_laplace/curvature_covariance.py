r"""The covariance $(G + \mathrm{diag}(\tau))^{-1}$ of a Laplace approximation."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._joint.covariance import AbstractCovariance, DiagonalCovariance
from .curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
)
from .kronecker_curvature import KroneckerCurvature
from .low_rank import LowRankCurvature
from .sum_of_curvatures import dense, diagonal_of


class CurvatureCovariance(AbstractCovariance):
    r"""$\Sigma = T (G + \mathrm{diag}(\tau))^{-1}$.

    **Arguments:**

    - `curvature`: $G$, in any structure.
    - `tau`: $\tau$.
    - `factor`: $T$.
    """

    curvature: AbstractCurvature
    tau: Float[Array, " dim"]
    factor: Float[Array, ""]

    def draw(self, *, key: PRNGKey) -> Float[Array, " dim"]:
        return jnp.sqrt(self.factor) * self.curvature.sample(self.tau, key=key)

    def variance(self) -> Float[Array, " dim"]:
        return self.factor * _variance(self.curvature, self.tau)

    def precision(self) -> Float[Array, "dim dim"]:
        return (dense(self.curvature) + jnp.diag(self.tau)) / self.factor

    def precision_diagonal(self) -> Float[Array, " dim"]:
        return (diagonal_of(self.curvature) + self.tau) / self.factor

    def log_det(self) -> Float[Array, ""]:
        log_factor = self.tau.size * jnp.log(self.factor)
        return log_factor - self.curvature.log_det(self.tau)

    def quadratic(self, delta: Float[Array, " dim"]) -> Float[Array, ""]:
        return self.curvature.quadratic(self.tau, delta) / self.factor

    def scaled(self, factor: float | Float[Array, ""]) -> "CurvatureCovariance":
        return eqx.tree_at(lambda c: c.factor, self, self.factor * factor)

    @property
    def is_diagonal(self) -> bool:
        return isinstance(self.curvature, DiagonalCurvature)


def split_precision(
    covariance: AbstractCovariance,
) -> tuple[AbstractCurvature | None, Float[Array, " dim"]]:
    r"""Return a precision as $G$ and $\tau$ whose sum it is; G is `None` if zero."""
    if isinstance(covariance, CurvatureCovariance):
        factor = 1.0 / covariance.factor
        return covariance.curvature.scaled(factor), covariance.tau * factor
    tau = covariance.precision_diagonal()
    if isinstance(covariance, DiagonalCovariance):
        return None, tau
    return FullCurvature(covariance.precision() - jnp.diag(tau)), tau


def _variance(curvature, tau):
    """The diagonal of the inverse, without a matrix of all weights but for full."""
    if isinstance(curvature, DiagonalCurvature):
        return 1.0 / (curvature.diagonal + tau)
    if isinstance(curvature, KroneckerCurvature):
        total = jnp.zeros_like(tau)
        for block, root in zip(curvature.blocks, curvature.root(tau), strict=True):
            scale, in_basis, out_basis, values = root
            part = out_basis**2 @ (1.0 / values) @ (in_basis**2).mT
            total = block.put(total, part * scale[:, None] ** 2)
        return total
    if isinstance(curvature, LowRankCurvature):
        scale, white, factor = curvature.root(tau)
        inner = jax.scipy.linalg.cho_solve((factor, True), white.T)
        return (1.0 - jnp.sum(white * inner.T, axis=1)) / scale**2
    return jnp.diag(curvature.covariance(tau, jnp.eye(tau.size, dtype=tau.dtype)))
