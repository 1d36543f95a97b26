"""One Kronecker product for each part of the weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .curvature import AbstractCurvature


class KroneckerBlock(eqx.Module):
    r"""The factors of one affine layer: $G \approx B \otimes A$ over $[W\; b]$.

    Groups are independent matrices of one shape in one leaf: those of a grouped
    convolution, or of layers that are stacked for a scan.

    **Fields:**

    - `inputs`: $A$, the sum over rows of $a a^\top$, where $a$ is the layer's input,
        and 1 for the bias.
    - `outputs`: $B$, the mean over rows of $J^\top H J$ in the layer's results. Of a
        vector, such as the gain of a norm, $A$ is the whole block and $B$ is 1.
    - `path`: of the weight in the model.
    - `start`: where its entries begin in the vector of all.
    - `bias_start`: where the bias begins, `None` without one.
    - `transposed`: whether the weight has its inputs before its outputs.
    """

    inputs: Float[Array, "groups in in"]
    outputs: Float[Array, "groups out out"]
    path: str = eqx.field(static=True)
    start: int = eqx.field(static=True)
    bias_start: int | None = eqx.field(static=True, default=None)
    transposed: bool = eqx.field(static=True, default=False)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Groups, outputs, and inputs without the bias."""
        groups, width, _ = self.inputs.shape
        return groups, self.outputs.shape[1], width - (self.bias_start is not None)

    @property
    def size(self) -> int:
        groups, out, width = self.shape
        return groups * out * (width + (self.bias_start is not None))

    def matrix(
        self, vector: Float[Array, "*n dim"]
    ) -> Float[Array, "*n groups out in"]:
        r"""Return the part of a vector of all weights that is this layer, $[W\; b]$."""
        groups, out, width = self.shape
        several = vector.shape[:-1]
        weight = vector[..., self.start : self.start + groups * out * width]
        if self.transposed:
            weight = weight.reshape(*several, groups, width, out)
            weight = jnp.swapaxes(weight, -1, -2)
        else:
            weight = weight.reshape(*several, groups, out, width)
        if self.bias_start is None:
            return weight
        bias = vector[..., self.bias_start : self.bias_start + groups * out]
        bias = bias.reshape(*several, groups, out, 1)
        return jnp.concatenate([weight, bias], -1)

    def put(
        self, vector: Float[Array, " dim"], matrix: Float[Array, "groups out in"]
    ) -> Float[Array, " dim"]:
        """Return the vector of all weights with this layer's part replaced."""
        weight = matrix
        if self.bias_start is not None:
            bias = matrix[..., -1].ravel()
            vector = vector.at[self.bias_start : self.bias_start + bias.size].set(bias)
            weight = matrix[..., :-1]
        if self.transposed:
            weight = jnp.swapaxes(weight, -1, -2)
        return vector.at[self.start : self.start + weight.size].set(weight.ravel())


class KroneckerCurvature(AbstractCurvature):
    r"""One Kronecker product for each part, factorised exactly with the prior.

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
            scale, white = _white(block, tau)
            a, in_basis = jnp.linalg.eigh(white)
            b, out_basis = jnp.linalg.eigh(block.outputs)
            parts.append((scale, in_basis, out_basis, _products(a, b) + 1.0))
        return parts

    def draw(
        self, root: list[tuple[Array, ...]], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        size = sum(block.size for block in self.blocks)
        total = jnp.zeros(size, root[0][0].dtype)
        for index, (block, part) in enumerate(zip(self.blocks, root, strict=True)):
            scale, in_basis, out_basis, values = part
            block_key = jax.random.fold_in(key, index)
            noise = jax.random.normal(block_key, values.shape, values.dtype)
            draw = _by_group(
                lambda left, middle, right: left @ middle @ right.T,
                out_basis,
                noise / jnp.sqrt(values),
                in_basis,
            )
            total = block.put(total, draw * scale[:, None])
        return total

    def spread(
        self, root: list[tuple[Array, ...]], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        total = jnp.zeros((len(jacobian), len(jacobian)), jacobian.dtype)
        for block, part in zip(self.blocks, root, strict=True):
            scale, in_basis, out_basis, values = part
            half = block.matrix(jacobian) * scale[None, :, None]
            half = out_basis.mT[None] @ half @ in_basis[None]
            half = (half / jnp.sqrt(values)[None]).reshape(len(jacobian), -1)
            total = total + half @ half.T
        return total

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        total = jnp.sum(jnp.log(tau))
        for block in self.blocks:
            # Eigenvalues alone: the gradient of eigenvectors fails where two agree.
            _, white = _white(block, tau)
            a, b = jnp.linalg.eigvalsh(white), jnp.linalg.eigvalsh(block.outputs)
            total = total + jnp.sum(jnp.log1p(_products(a, b)))
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


def _by_group(function, *arrays):
    """Map a function over groups, without a batch axis where there is one group: on a
    CPU the bits of a batched product depend on the rest of the program.
    """
    if len(arrays[0]) == 1:
        return function(*(array[0] for array in arrays))[None]
    return jax.vmap(function)(*arrays)


def _white(block, tau):
    """Roots of the prior's variance of each column, and A in their units."""
    scale = 1.0 / jnp.sqrt(block.matrix(tau)[:, 0])
    return scale, scale[:, :, None] * block.inputs * scale[:, None]


def _products(a, b):
    # Rounding may leave eigenvalues of -1e-9 where theory has zero.
    return jnp.maximum(b, 0.0)[:, :, None] * jnp.maximum(a, 0.0)[:, None]
