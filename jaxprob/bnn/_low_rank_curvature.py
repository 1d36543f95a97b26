"""The leading eigenvectors of the curvature, for networks too large for the matrix."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Bool, Float, PyTree

from .._types import Model, PRNGKey
from ._curvature import AbstractCurvature
from ._log_joint import LogJoint
from ._output_hessian import Kind, output_hessian
from ._ravel import ravel

OVERSAMPLING = 10
POWER_PASSES = 3


class LowRankCurvature(AbstractCurvature):
    r"""$G \approx V V^\top$, where V holds eigenvectors times roots of eigenvalues.

    With $D = \mathrm{diag}(\tau)$, $W = D^{-1/2} V$ and $A = I + W^\top W$,

    $$\Lambda^{-1} = D^{-1/2} H H^\top D^{-1/2}, \qquad
      H = \left( I - W A^{-1} W^\top,\; W A^{-1} \right)$$

    and all that is asked costs rank times dim. A direction of which the data say much
    has an eigenvalue of A of up to $10^8$ and the variance of its inverse: as the sum
    of two squares it has the digits that the difference $I - W A^{-1} W^\top$, which
    is the same matrix, has not in single precision.

    Reference: *Fast sampling with Gaussian scale mixture priors in high-dimensional
    regression*, Bhattacharya, Chakraborty and Mallick, 2016,
    https://arxiv.org/abs/1506.04778.

    **Fields:**

    - `factor`: $V$.
    """

    factor: Float[Array, "dim rank"]

    def root(self, tau: Float[Array, " dim"]) -> tuple[Array, Array, Array]:
        r"""Roots of $\tau$, $W$, and the Cholesky factor of $A$."""
        scale = jnp.sqrt(tau)
        white = self.factor / scale[:, None]
        gram = white.T @ white
        return (
            scale,
            white,
            jnp.linalg.cholesky(jnp.eye(len(gram), dtype=gram.dtype) + gram),
        )

    def draw(
        self, root: tuple[Array, Array, Array], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        scale, white, factor = root
        noise = jax.random.normal(key, (sum(white.shape),), scale.dtype)
        first, second = jnp.split(noise, white.shape[:1])
        inner = cho_solve((factor, True), white.T @ first + second)
        return (first - white @ inner) / scale

    def spread(
        self, root: tuple[Array, Array, Array], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        scale, white, factor = root
        scaled = (jacobian / scale[None]).T
        inner = cho_solve((factor, True), white.T @ scaled)
        outer = scaled - white @ inner
        return outer.T @ outer + inner.T @ inner

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        _, _, factor = self.root(tau)
        return jnp.sum(jnp.log(tau)) + 2.0 * jnp.sum(jnp.log(jnp.diag(factor)))

    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        return jnp.sum(tau * delta**2) + jnp.sum((self.factor.T @ delta) ** 2)

    def scaled(self, factor: Float[Array, ""]) -> "LowRankCurvature":
        return LowRankCurvature(self.factor * jnp.sqrt(factor))


def curvature_product(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: Array,
    weights: Bool[Array, " rows"],
    kind: Kind,
    columns: Float[Array, "dim columns"],
) -> tuple[Float[Array, "dim columns"], Float[Array, "rows 2"]]:
    """The curvature of some rows times a matrix, with neither in memory; and the values
    of `output_hessian`.
    """
    params, rest = eqx.partition(model, flags)
    vector, unravel = ravel(params)

    def output(vector, x):
        return joint.apply(eqx.combine(unravel(vector), rest), x, key=jax.random.key(0))

    def flat(vector):
        return jax.vmap(lambda x: ravel(output(vector, x))[0])(x)

    outputs = jax.vmap(lambda x: output(vector, x))(x)
    hessians, values = jax.vmap(lambda out, y: output_hessian(joint, out, y, kind))(
        outputs, y
    )
    zero = jnp.zeros((), hessians.dtype)
    hessians = jnp.where(weights[:, None, None], hessians, zero)
    _, forward = jax.linearize(flat, vector)
    try:
        jax.eval_shape(jax.vmap(forward), columns.T)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        # A model with a rule for backwards alone, as of an ODE that is solved by
        # diffrax: its Jacobian, of one row at a time.
        jacobian = jax.jacrev(lambda v, x: ravel(output(v, x))[0])

        def add(total, row):
            x, hessian = row
            matrix = jacobian(vector, x)
            return total + matrix.T @ (hessian @ (matrix @ columns)), None

        return jax.lax.scan(add, jnp.zeros_like(columns), (x, hessians))[0], values
    _, backward = jax.vjp(flat, vector)

    def product(column):
        tangent = jnp.einsum("nij,nj->ni", hessians, forward(column))
        return backward(tangent)[0]

    return jax.lax.map(product, columns.T, batch_size=8).T, values


def leading_factor(
    product,
    dim: int,
    rank: int,
    dtype,
) -> tuple[Float[Array, "dim rank"], Float[Array, "2"], Float[Array, ""]]:
    r"""V of the leading eigenpairs, by randomised subspace iteration.

    A Krylov method (Lanczos) reads the data once for each vector; a block reads them
    `POWER_PASSES + 1` times in all.

    Reference: *Finding structure with randomness*, Halko, Martinsson and Tropp, 2011,
    https://arxiv.org/abs/0909.4061.

    **Arguments:**

    - `product`: `product(matrix) -> (G @ matrix, values, rows)`.
    - `dim`, `rank`: rows of V, and columns.
    """
    width = min(dim, rank + OVERSAMPLING)
    start = jax.random.normal(jax.random.key(0), (dim, width), dtype)
    basis = jnp.linalg.qr(start)[0]
    for _ in range(POWER_PASSES):
        image, _, _ = product(basis)
        basis = jnp.linalg.qr(image)[0]
    image, values, count = product(basis)
    squares, vectors = jnp.linalg.eigh(basis.T @ image)
    keep = slice(width - min(rank, dim), None)
    roots = jnp.sqrt(jnp.maximum(squares[keep], 0.0))
    return (basis @ vectors[:, keep]) * roots[None], values, count


def reiterable(batches: Iterable[PyTree]) -> Iterable[PyTree]:
    """Something that can be gone through several times."""
    return list(batches) if iter(batches) is batches else batches
