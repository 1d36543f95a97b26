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


class KroneckerBlock(eqx.Module):
    r"""The factors of one affine layer: $G \approx B \otimes A$ over $[W\; b]$.

    **Fields:**

    - `inputs`: $A = \sum_i a_i a_i^\top$, where $a$ is the layer's input, and 1 for the
        bias; for a convolution i runs over the places of all rows.
    - `outputs`: $B$, the mean over i of $J_i^\top H J_i$ in the pre-activations.
    - `start`: where its weights begin in the vector of all.
    """

    inputs: Float[Array, "in in"]
    outputs: Float[Array, "out out"]
    start: int = eqx.field(static=True)
    bias: bool = eqx.field(static=True)

    @property
    def size(self) -> int:
        return len(self.inputs) * len(self.outputs)

    def matrix(self, vector: Float[Array, "*n dim"]) -> Float[Array, "*n out in"]:
        r"""Return the part of a vector of all weights that is this layer, $[W\; b]$."""
        part = vector[..., self.start : self.start + self.size]
        out, width = len(self.outputs), len(self.inputs) - self.bias
        weight = part[..., : out * width].reshape(*part.shape[:-1], out, width)
        bias = part[..., out * width :, None]
        return jnp.concatenate([weight, bias], -1) if self.bias else weight

    def flat(self, matrix: Float[Array, "out in"]) -> Float[Array, " size"]:
        """Return the inverse of `matrix`."""
        if not self.bias:
            return matrix.ravel()
        return jnp.concatenate([matrix[:, :-1].ravel(), matrix[:, -1]])


class KroneckerCurvature(AbstractCurvature):
    r"""One Kronecker product for each affine layer, factorised exactly with the prior.

    The prior's precision may differ between the columns of a layer, as the fan-in prior
    does between weights and bias. With $T = \mathrm{diag}(\tau)$ over columns and the
    eigenvalues $a$ of $T^{-1/2} A T^{-1/2}$ and $b$ of B,
    $\Lambda = (I \otimes T^{1/2}) (B \otimes T^{-1/2} A T^{-1/2} + I)
    (I \otimes T^{1/2})$ has the determinant $\prod_{io} (a_i b_o + 1) \tau_i$.

    References: *Optimizing neural networks with Kronecker-factored approximate
    curvature*, Martens and Grosse, 2015, https://arxiv.org/abs/1503.05671; *A scalable
    Laplace approximation for neural networks*, Ritter, Botev and Barber, 2018.
    """

    blocks: tuple[KroneckerBlock, ...]

    def root(self, tau: Float[Array, " dim"]) -> list[tuple[Array, ...]]:
        """Return scale, both bases of eigenvectors and eigenvalues of each block."""
        parts = []
        for block in self.blocks:
            scale = 1.0 / jnp.sqrt(block.matrix(tau)[0])
            a, in_basis = jnp.linalg.eigh(scale[:, None] * block.inputs * scale[None])
            b, out_basis = jnp.linalg.eigh(block.outputs)
            # Rounding may leave eigenvalues of -1e-9 where theory has zero.
            values = jnp.maximum(b, 0.0)[:, None] * jnp.maximum(a, 0.0)[None] + 1.0
            parts.append((scale, in_basis, out_basis, values))
        return parts

    def draw(
        self, root: list[tuple[Array, ...]], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        parts = []
        for index, (block, part) in enumerate(zip(self.blocks, root, strict=True)):
            scale, in_basis, out_basis, values = part
            block_key = jax.random.fold_in(key, index)
            noise = jax.random.normal(block_key, values.shape, values.dtype)
            draw = out_basis @ (noise / jnp.sqrt(values)) @ in_basis.T
            parts.append(block.flat(draw * scale[None]))
        return jnp.concatenate(parts)

    def spread(
        self, root: list[tuple[Array, ...]], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        total = jnp.zeros((len(jacobian), len(jacobian)), jacobian.dtype)
        for block, part in zip(self.blocks, root, strict=True):
            scale, in_basis, out_basis, values = part
            half = block.matrix(jacobian) * scale[None, None]
            half = (out_basis.T @ half @ in_basis) / jnp.sqrt(values)[None]
            half = half.reshape(len(jacobian), -1)
            total = total + half @ half.T
        return total

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        total = jnp.sum(jnp.log(tau))
        for block in self.blocks:
            # Eigenvalues alone: the gradient of eigenvectors fails where two agree.
            scale = 1.0 / jnp.sqrt(block.matrix(tau)[0])
            a = jnp.linalg.eigvalsh(scale[:, None] * block.inputs * scale[None])
            b = jnp.linalg.eigvalsh(block.outputs)
            values = jnp.maximum(b, 0.0)[:, None] * jnp.maximum(a, 0.0)[None]
            total = total + jnp.sum(jnp.log1p(values))
        return total

    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        total = jnp.sum(tau * delta**2)
        for block in self.blocks:
            part = block.matrix(delta)
            total = total + jnp.sum(part * (block.outputs @ part @ block.inputs))
        return total

    def scaled(self, factor: Float[Array, ""]) -> "KroneckerCurvature":
        return eqx.tree_at(
            lambda c: [block.outputs for block in c.blocks],
            self,
            replace_fn=lambda outputs: outputs * factor,
        )
