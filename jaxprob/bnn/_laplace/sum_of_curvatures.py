"""Sum of two curvatures: that of the likelihood, and that of a Gaussian prior."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .curvature import (
    AbstractCurvature,
    DiagonalCurvature,
    FullCurvature,
)
from .kronecker_curvature import KroneckerBlock, KroneckerCurvature
from .low_rank import LowRankCurvature

_NAMES = {
    FullCurvature: "full",
    DiagonalCurvature: "diagonal",
    KroneckerCurvature: "kronecker",
    LowRankCurvature: "low_rank",
}


def sum_of_curvatures(
    first: AbstractCurvature, second: AbstractCurvature
) -> AbstractCurvature:
    """Return the sum in the form of the first.

    The sum of full, diagonal or low-rank curvatures is exact, and the rank of the sum
    is the sum of the ranks. That of two Kronecker products is the nearest product in
    the Frobenius norm; it is exact where the factors of outputs, or of inputs, are
    multiples of each other, as of a linear model with Gaussian noise.

    Reference: *Approximation with Kronecker products*, Van Loan and Pitsianis, 1993.

    **Raises:** `ValueError` where the second has correlations that the first cannot
    hold.
    """
    if isinstance(first, FullCurvature):
        return FullCurvature(first.matrix + dense(second))
    if isinstance(first, DiagonalCurvature) and isinstance(second, DiagonalCurvature):
        return DiagonalCurvature(first.diagonal + second.diagonal)
    if isinstance(first, LowRankCurvature) and isinstance(second, LowRankCurvature):
        return LowRankCurvature(
            jnp.concatenate([first.factor, second.factor], axis=1),
            first.residual + second.residual,
            jnp.maximum(first.negative, second.negative),
        )
    if isinstance(first, KroneckerCurvature) and isinstance(second, KroneckerCurvature):
        pairs = zip(first.blocks, second.blocks, strict=True)
        return KroneckerCurvature(tuple(_sum_of_blocks(a, b) for a, b in pairs))
    check_sum(_NAMES[type(first)], second)
    raise AssertionError(f"{type(first).__name__} and {type(second).__name__}")


def check_sum(structure: str, second: AbstractCurvature) -> None:
    """Raise `ValueError` where a structure cannot hold a sum with this curvature."""
    given = _NAMES[type(second)]
    if structure not in ("full", given):
        raise ValueError(
            f"structure={structure!r}, and the prior is a Gaussian whose precision is "
            f"{given!r}: their sum has no {structure!r} form. Write structure='full', "
            f"or structure={given!r}; or make the prior of a posterior with "
            f"structure={structure!r}"
        )


def dense(curvature: AbstractCurvature) -> Float[Array, "dim dim"]:
    """Return $G$ as a matrix."""
    if isinstance(curvature, FullCurvature):
        return curvature.matrix
    if isinstance(curvature, DiagonalCurvature):
        return jnp.diag(curvature.diagonal)
    if isinstance(curvature, LowRankCurvature):
        return curvature.factor @ curvature.factor.T
    assert isinstance(curvature, KroneckerCurvature)
    dim = sum(block.size for block in curvature.blocks)
    matrix = jnp.zeros((dim, dim), curvature.blocks[0].inputs.dtype)
    for block in curvature.blocks:
        columns = block.matrix(jnp.eye(dim, dtype=matrix.dtype))
        products = block.outputs[None] @ columns @ block.inputs[None]
        matrix = matrix + jnp.einsum("agoi,bgoi->ab", columns, products)
    return matrix


def diagonal_of(curvature: AbstractCurvature) -> Float[Array, " dim"]:
    """Return the diagonal of $G$."""
    if isinstance(curvature, FullCurvature):
        return jnp.diag(curvature.matrix)
    if isinstance(curvature, DiagonalCurvature):
        return curvature.diagonal
    if isinstance(curvature, LowRankCurvature):
        return jnp.sum(curvature.factor**2, axis=1)
    assert isinstance(curvature, KroneckerCurvature)
    dim = sum(block.size for block in curvature.blocks)
    total = jnp.zeros(dim, curvature.blocks[0].inputs.dtype)
    for block in curvature.blocks:
        outputs, inputs = (
            jnp.diagonal(factor, axis1=1, axis2=2)
            for factor in (block.outputs, block.inputs)
        )
        total = block.put(total, outputs[:, :, None] * inputs[:, None])
    return total


def _sum_of_blocks(first: KroneckerBlock, second: KroneckerBlock) -> KroneckerBlock:
    """The nearest product of each group."""
    if _layout(first) != _layout(second):
        raise ValueError(
            f"the prior is a Gaussian whose precision at {second.path} has Kronecker "
            "factors of another layout than the curvature has: write structure='full'"
        )
    inputs, outputs = jax.vmap(_nearest_product)(
        first.inputs, first.outputs, second.inputs, second.outputs
    )
    return eqx.tree_at(lambda b: (b.inputs, b.outputs), first, (inputs, outputs))


def _layout(block):
    return block.shape, block.start, block.bias_start, block.transposed


def _nearest_product(first_inputs, first_outputs, second_inputs, second_outputs):
    r"""The product $B \otimes A$ nearest to $\sum_k B_k \otimes A_k$.

    Rearranged, the sum is the matrix $\sum_k \mathrm{vec}(B_k) \mathrm{vec}(A_k)^\top$
    of rank two, and the nearest product its leading singular pair $u v^\top$. With
    $u = \sum_k x_k \mathrm{vec}(B_k)$ and the Gram matrices $S_A, S_B$ x is the leading
    eigenvector of $S_A S_B$. Both have no negative entry, because inner products of
    positive matrices have none; so has x none, and u and v are positive matrices.
    """
    outputs, out_sizes = _normalised(first_outputs, second_outputs)
    inputs, in_sizes = _normalised(first_inputs, second_inputs)
    weights = out_sizes * in_sizes
    inputs = inputs * weights[:, None, None]
    by_inputs = jnp.einsum("kij,lij->kl", inputs, inputs)
    by_outputs = jnp.einsum("kij,lij->kl", outputs, outputs)
    values, vectors = jnp.linalg.eigh(by_inputs)
    root = (vectors * jnp.sqrt(jnp.maximum(values, 0.0))[None]) @ vectors.T
    x = root @ jnp.linalg.eigh(root @ by_outputs @ root)[1][:, -1]
    x = x * jnp.where(jnp.sum(x) < 0, -1.0, 1.0).astype(x.dtype)
    squares = x @ by_outputs @ x
    y = by_outputs @ x / jnp.where(squares > 0, squares, jnp.ones_like(squares))
    # The mean of the outputs' factors, and the sum over rows in those of the inputs.
    size = jnp.max(out_sizes)
    size = jnp.where(size > 0, size, jnp.ones_like(size))
    inputs = jnp.einsum("k,kij->ij", y, inputs) / size
    return inputs, jnp.einsum("k,kij->ij", x, outputs) * size


def _normalised(first, second):
    stacked = jnp.stack([first, second])
    sizes = jnp.sqrt(jnp.sum(stacked**2, axis=(1, 2)))
    safe = jnp.where(sizes > 0, sizes, jnp.ones_like(sizes))
    return stacked / safe[:, None, None], sizes
