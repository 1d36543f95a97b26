"""The leading eigenvectors of the curvature, for networks too large for the matrix."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve
from jaxtyping import Array, Float, PyTree

from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from .._joint.log_joint import LogJoint
from .._joint.output_hessian import Kind, output_hessian
from .._joint.row import weighted
from .curvature import AbstractCurvature
from .dense import as_function
from .forward_mode import has_forward_mode

OVERSAMPLING = 10
"""Columns of the block beyond the rank."""

POWER_PASSES = 3
"""Passes over the data that turn the block towards the leading eigenvectors."""

PROBES = 8
"""Random vectors that estimate the traces of what is left out."""


class LowRankCurvature(AbstractCurvature):
    r"""$G \approx V V^\top$, where V holds eigenvectors times roots of eigenvalues.

    With $D = \mathrm{diag}(\tau)$, $W = D^{-1/2} V$ and $A = I + W^\top W$,

    $$\Lambda^{-1} = D^{-1/2} H H^\top D^{-1/2}, \qquad
      H = \left( I - W A^{-1} W^\top,\; W A^{-1} \right)$$

    and every operation costs rank times dim. A direction that the data determine well
    has an eigenvalue of A of up to $10^8$, and the inverse of that as its variance. The
    difference $I - W A^{-1} W^\top$ is the same matrix, and loses all digits of this
    variance in single precision; the sum of two squares $H H^\top$ keeps them.

    Reference: *Fast sampling with Gaussian scale mixture priors in high-dimensional
    regression*, Bhattacharya, Chakraborty and Mallick, 2016,
    https://arxiv.org/abs/1506.04778.

    **Fields:**

    - `factor`: $V$.
    - `residual`: the traces of $R$, $T^{-1} R$ and $(T^{-1} R)^2$, where $R = G - V
        V^\top$ is left out, and T is the precision of the prior in the pass.
    - `negative`: fraction of the sum of absolute leading eigenvalues that was negative
        and was set to zero.
    """

    factor: Float[Array, "dim rank"]
    residual: Float[Array, "3"]
    negative: Float[Array, ""]

    @property
    def left_out(self) -> Float[Array, ""]:
        """Fraction of the trace of the curvature that the eigenvectors leave out,
        estimated by random probes.
        """
        trace = jnp.sum(self.factor**2)
        return self.residual[0] / (trace + self.residual[0])

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
        powers = jnp.stack([factor, factor, factor**2])
        return LowRankCurvature(
            self.factor * jnp.sqrt(factor), self.residual * powers, self.negative
        )


def curvature_product(
    joint: LogJoint,
    model: Model,
    flags: PyTree[bool],
    x: PyTree,
    y: PyTree,
    weights: Float[Array, " rows"],
    kind: Kind,
    columns: Float[Array, "dim columns"],
) -> tuple[Float[Array, "dim columns"], Float[Array, "rows 2"]]:
    """Return the curvature of some rows times a matrix, and the values of
    `output_hessian`. Neither the curvature nor a Jacobian is formed.
    """
    vector, output = as_function(joint, model, flags)

    def flat(vector):
        return jax.vmap(lambda x: ravel(output(vector, x))[0])(x)

    outputs = jax.vmap(lambda x: output(vector, x))(x)
    hessians, values = jax.vmap(lambda out, y: output_hessian(joint, out, y, kind))(
        outputs, y
    )
    hessians = weighted(weights, hessians)
    _, forward = jax.linearize(flat, vector)
    if not has_forward_mode(jax.vmap(forward), columns.T):
        # Backwards alone there is the Jacobian, of one row at a time.
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
    product: Callable[[Array], tuple[Array, Array, PyTree]],
    dim: int,
    rank: int,
    tau: Float[Array, " dim"],
) -> tuple[LowRankCurvature, Float[Array, "2"], PyTree]:
    r"""Return the leading eigenpairs, by randomised subspace iteration.

    A Krylov method (Lanczos) needs a pass over the data for each vector, a block needs
    `POWER_PASSES + 1` passes. What is left out is probed in the last of them, so that
    the part inside the block adds no noise (as in Hutch++).

    References: *Finding structure with randomness*, Halko, Martinsson and Tropp, 2011,
    https://arxiv.org/abs/0909.4061; *Hutch++: optimal stochastic trace estimation*,
    Meyer, Musco, Musco and Woodruff, 2021, https://arxiv.org/abs/2010.09649.

    **Arguments:**

    - `product`: `product(matrix) -> (G @ matrix, values, counts)`.
    - `dim`, `rank`: rows of V, and columns.
    - `tau`: precision of the prior.

    **Returns:** the curvature of the rows, and values and counts of `product`.
    """
    width = min(dim, rank + OVERSAMPLING)
    start_key, probe_key = jax.random.split(jax.random.key(0))
    start = jax.random.normal(start_key, (dim, width), tau.dtype)
    basis = jnp.linalg.qr(start)[0]
    for _ in range(POWER_PASSES):
        image, _, _ = product(basis)
        basis = jnp.linalg.qr(image)[0]
    scale = jnp.sqrt(tau)[:, None]
    probes = jax.random.rademacher(probe_key, (dim, PROBES), tau.dtype)

    def outside(columns):
        # Twice, because the part that rounding leaves inside is multiplied by the
        # largest eigenvalue.
        for _ in range(2):
            columns = columns - basis @ (basis.T @ columns)
        return columns

    plain, scaled = outside(probes), outside(probes / scale)
    image, values, count = product(jnp.concatenate([basis, plain, scaled], axis=1))
    image, by_plain, by_scaled = jnp.split(image, (width, width + PROBES), axis=1)
    squares, vectors = jnp.linalg.eigh(basis.T @ image)
    roots = jnp.sqrt(jnp.maximum(squares, 0.0))
    pairs = (basis @ vectors) * roots[None]
    dropped, factor = jnp.split(pairs, (width - min(rank, dim),), axis=1)
    white = dropped / scale
    rest = outside(by_scaled) / scale
    residual = [
        jnp.sum(dropped**2) + jnp.sum(plain * by_plain) / PROBES,
        jnp.sum(white**2) + jnp.sum(scaled * by_scaled) / PROBES,
        jnp.sum((white.T @ white) ** 2) + jnp.sum(rest**2) / PROBES,
    ]
    residual = jnp.maximum(jnp.stack(residual), 0.0)
    kept = squares[-min(rank, dim) :]
    size = jnp.sum(jnp.abs(kept))
    negative = jnp.sum(jnp.maximum(-kept, 0.0))
    negative = negative / jnp.where(size > 0, size, jnp.ones((), size.dtype))
    return LowRankCurvature(factor, residual, negative), values, count


def reiterable(batches: Iterable[PyTree]) -> Iterable[PyTree]:
    """Return batches that can be iterated over several times."""
    return list(batches) if iter(batches) is batches else batches
