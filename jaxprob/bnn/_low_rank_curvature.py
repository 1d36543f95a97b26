"""The leading eigenvectors of the curvature, for networks too large for the matrix."""

from collections.abc import Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
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

    With $D = \mathrm{diag}(\tau)$ and the thin decomposition $D^{-1/2} V = Q S R^\top$,
    $\Lambda = D^{1/2} (I + Q S^2 Q^\top) D^{1/2}$: all that is asked costs rank times
    dim.

    **Fields:**

    - `factor`: $V$.
    """

    factor: Float[Array, "dim rank"]

    def root(self, tau: Float[Array, " dim"]) -> tuple[Array, Array, Array]:
        r"""Roots of $\tau$, $D^{-1/2} V R = Q S$, and $S^2$."""
        scale = jnp.sqrt(tau)
        white = self.factor / scale[:, None]
        values, basis = jnp.linalg.eigh(white.T @ white)
        return scale, white @ basis, jnp.maximum(values, 0.0)

    def draw(
        self, root: tuple[Array, Array, Array], *, key: PRNGKey
    ) -> Float[Array, " dim"]:
        noise = jax.random.normal(key, root[0].shape, root[0].dtype)
        return self._inverse_root(root, noise) / root[0]

    def _inverse_root(self, root, noise):
        r"""$(I + Q S^2 Q^\top)^{-1/2}$ times a vector."""
        _, white, values = root
        # Where S is zero so is the change.
        shrink = jnp.where(
            values > 0, (jax.lax.rsqrt(1.0 + values) - 1.0) / _one_for_zero(values), 0.0
        )
        return noise + white @ (shrink * (white.T @ noise))

    def spread(
        self, root: tuple[Array, Array, Array], jacobian: Float[Array, "out dim"]
    ) -> Float[Array, "out out"]:
        scale, white, values = root
        scaled = jacobian / scale[None]
        inside = scaled @ white
        return scaled @ scaled.T - (inside / (1.0 + values)[None]) @ inside.T

    def log_det(self, tau: Float[Array, " dim"]) -> Float[Array, ""]:
        white = self.factor / jnp.sqrt(tau)[:, None]
        gram = white.T @ white
        root = jnp.linalg.cholesky(jnp.eye(len(gram), dtype=gram.dtype) + gram)
        return jnp.sum(jnp.log(tau)) + 2.0 * jnp.sum(jnp.log(jnp.diag(root)))

    def quadratic(
        self, tau: Float[Array, " dim"], delta: Float[Array, " dim"]
    ) -> Float[Array, ""]:
        return jnp.sum(tau * delta**2) + jnp.sum((self.factor.T @ delta) ** 2)

    def scaled(self, factor: Float[Array, ""]) -> "LowRankCurvature":
        return LowRankCurvature(self.factor * jnp.sqrt(factor))


def _one_for_zero(values):
    return jnp.where(values > 0, values, 1.0)


def curvature_product(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: Array,
    weights: Bool[Array, " rows"],
    kind: Kind,
    columns: Float[Array, "dim columns"],
) -> tuple[Float[Array, "dim columns"], Float[Array, " rows"]]:
    """The curvature of some rows times a matrix, without either in memory."""
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
) -> tuple[Float[Array, "dim rank"], Float[Array, ""], Float[Array, ""]]:
    r"""V of the leading eigenpairs, by randomised subspace iteration.

    A Krylov method (Lanczos) reads the data once for each vector; a block reads them
    `POWER_PASSES + 1` times in all.

    Reference: *Finding structure with randomness*, Halko, Martinsson and Tropp, 2011,
    https://arxiv.org/abs/0909.4061.

    **Arguments:**

    - `product`: `product(matrix) -> (G @ matrix, log-likelihood, rows)`.
    - `dim`, `rank`: rows of V, and columns.
    """
    width = min(dim, rank + OVERSAMPLING)
    start = jax.random.normal(jax.random.key(0), (dim, width), dtype)
    basis = jnp.linalg.qr(start)[0]
    for _ in range(POWER_PASSES):
        image, _, _ = product(basis)
        basis = jnp.linalg.qr(image)[0]
    image, log_likelihood, count = product(basis)
    values, vectors = jnp.linalg.eigh(basis.T @ image)
    keep = slice(width - min(rank, dim), None)
    roots = jnp.sqrt(jnp.maximum(values[keep], 0.0))
    return (basis @ vectors[:, keep]) * roots[None], log_likelihood, count


def reiterable(batches: Iterable[PyTree]) -> Iterable[PyTree]:
    """Something that can be gone through several times."""
    return list(batches) if iter(batches) is batches else batches
