r"""$\log |G + \mathrm{diag}(\tau)|$ for many priors after one factorisation.

While the scales of a prior are tuned, $\tau$ changes by a factor that many weights
share: all of them, those of a layer, or those of one leaf. The eigenvalues of G in the
units of the first prior are then computed once.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float

from .curvature import AbstractCurvature, FullCurvature
from .kronecker_curvature import KroneckerBlock, KroneckerCurvature

SAME = 1e-4
"""Relative difference of two ratios of precisions that counts as rounding."""


class AbstractLogDet(eqx.Module):
    r"""Base class of $\log |G + \mathrm{diag}(\tau)|$ as a function of $\tau$."""

    @abc.abstractmethod
    def __call__(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        """Return the log determinant, differentiable twice."""


def spectrum(
    curvature: AbstractCurvature,
    tau: Float[Array, " dim"],
    ratios: Float[Array, "changes dim"],
) -> AbstractLogDet:
    r"""Return the log determinant of the curvature and a precision of the prior.

    **Arguments:**

    - `curvature`: G.
    - `tau`: precision of the prior at the start.
    - `ratios`: precisions of other scales over those at the start, which tell the
        weights whose precisions change together.
    """
    if isinstance(curvature, KroneckerCurvature):
        logs = [_of_block(block, tau, ratios) for block in curvature.blocks]
        return _Blocks(tuple(logs))
    if isinstance(curvature, FullCurvature):
        if _change_together(ratios):
            scale = 1.0 / jnp.sqrt(tau)
            values = _eigenvalues(scale[:, None] * curvature.matrix * scale[None])
            return _OneFactor(values, tau)
        return _Full(curvature.matrix)
    return _Direct(curvature)


class _Direct(AbstractLogDet):
    """Any curvature, factorised for each prior: a diagonal, or one of low rank."""

    curvature: AbstractCurvature

    def __call__(self, tau):
        return self.curvature.log_det(tau)


class _OneFactor(AbstractLogDet):
    """A matrix with eigenvalues in the units of a precision that has one factor."""

    values: Float[Array, " dim"]
    tau: Float[Array, " dim"]

    def __call__(self, tau):
        factor = tau[0] / self.tau[0]
        return jnp.sum(jnp.log(self.tau)) + jnp.sum(jnp.log(self.values + factor))


class _Blocks(AbstractLogDet):
    logs: tuple[AbstractLogDet, ...]

    def __call__(self, tau):
        return sum((log(tau) for log in self.logs), jnp.zeros((), tau.dtype))


class _Block(AbstractLogDet):
    r"""A Kronecker block whose weights have one factor of $\tau$ and its bias another.

    With $\tilde A = T^{-1/2} A T^{-1/2}$ in the units of the first prior, eigenvalues
    $\lambda$ and eigenvectors U of its part of the weights, $c = U^\top \tilde a$ of
    its column of the bias and the eigenvalues b of B, each b has the determinant

    $$\prod_i (b \lambda_i + f) \; \Bigl( b \tilde A_{bb} + f_b - \sum_i \frac{b^2
      c_i^2}{b \lambda_i + f} \Bigr)$$

    for the factors f of the weights and $f_b$ of the bias (Schur complement).
    """

    block: KroneckerBlock
    tau: Float[Array, "groups in"]
    outputs: Float[Array, "groups out"]
    values: Float[Array, "groups weights"]
    corner: tuple[Float[Array, "groups weights"], Float[Array, " groups"]] | None

    def __call__(self, tau):
        rows = self.block.matrix(tau)[:, 0] / self.tau
        b = self.outputs[:, :, None]
        of_weights = b * self.values[:, None] + rows[:, None, :1]
        total = self.outputs.shape[1] * jnp.sum(jnp.log(self.tau))
        total = total + jnp.sum(jnp.log(of_weights))
        if self.corner is None:
            return total
        column, corner = self.corner
        of_bias = rows[:, -1:]
        rest = self.outputs * corner[:, None] + of_bias
        rest = rest - jnp.sum((b * column[:, None]) ** 2 / of_weights, -1)
        # In exact numbers it is at least the precision of the prior.
        return total + jnp.sum(jnp.log(jnp.maximum(rest, of_bias)))


class _DirectBlock(AbstractLogDet):
    """A Kronecker block whose precisions change by factors of many columns."""

    block: KroneckerBlock

    def __call__(self, tau):
        one = KroneckerCurvature((self.block,))
        rows = self.block.matrix(tau)
        # The log determinant of a curvature counts all of tau.
        return one.log_det(tau) - jnp.sum(jnp.log(tau)) + jnp.sum(jnp.log(rows))


class _Full(AbstractLogDet):
    """A matrix under a prior with several factors, which share no eigenvectors."""

    matrix: Float[Array, "dim dim"]

    def __call__(self, tau):
        return _full_log_det(self.matrix, tau)


@jax.custom_jvp
def _full_log_det(matrix, tau):
    return FullCurvature(matrix).log_det(tau)


@_full_log_det.defjvp
def _(primals, tangents):
    matrix, tau = primals
    slope = jnp.sum(_inverse_diagonal(matrix, tau) * tangents[1])
    return _full_log_det(matrix, tau), slope


@jax.custom_jvp
def _inverse_diagonal(matrix, tau):
    return jnp.diag(_inverse(matrix, tau))


@_inverse_diagonal.defjvp
def _(primals, tangents):
    # The derivative of a Cholesky factor would cost several times the inverse.
    inverse = _inverse(*primals)
    return jnp.diag(inverse), -(inverse**2) @ tangents[1]


def _inverse(matrix, tau):
    root = FullCurvature(matrix).root(tau)
    return cho_solve((root, True), jnp.eye(len(tau), dtype=tau.dtype))


def _of_block(block, tau, ratios):
    rows = np.asarray(block.matrix(ratios))[..., 0, :].swapaxes(0, 1)
    bias = block.bias_start is not None
    weights = rows[..., :-1] if bias else rows
    if not all(map(_change_together, weights)):
        return _DirectBlock(block)
    tau = block.matrix(tau)[:, 0]
    scale = 1.0 / jnp.sqrt(tau)
    white = scale[:, :, None] * block.inputs * scale[:, None]
    outputs = _eigenvalues(block.outputs)
    if not bias or all(map(_change_together, rows)):
        return _Block(block, tau, outputs, _eigenvalues(white), None)
    values, vectors = jnp.linalg.eigh(white[:, :-1, :-1])
    column = jnp.einsum("gij,gi->gj", vectors, white[:, :-1, -1])
    corner = column, white[:, -1, -1]
    return _Block(block, tau, outputs, jnp.maximum(values, 0.0), corner)


def _change_together(ratios):
    """Return whether all weights have one ratio in each change."""
    ratios = np.asarray(ratios)
    return bool(np.all(np.abs(ratios / ratios[:, :1] - 1.0) < SAME))


@jax.jit
def _eigenvalues(matrix):
    # Rounding may leave eigenvalues of -1e-9 where theory has zero.
    return jnp.maximum(jnp.linalg.eigvalsh(matrix), 0.0)
