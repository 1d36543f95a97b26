r"""Solutions of $(I + M) z = b$ for a matrix M that should be positive semi-definite.

M is $W A V A^T W$, with V from the Jacobian of a denoiser. That of a learned network
has negative eigenvalues too. They are errors of the network, and where $I + M$ is
nearly singular because of them, an ordinary solver returns something arbitrarily large.
"""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

Product: TypeAlias = Callable[[Float[Array, " size"]], Float[Array, " size"]]


def solve_dense(product: Product, b: Float[Array, " size"]) -> Float[Array, " size"]:
    """Solve by the eigenvalues of M; z has no part where they are below 0.

    V cannot be 0 on part of a direction in which it is negative, so that a part of z
    there would move the answer away from y.

    **Arguments:**

    - `product`: multiplies a vector with M.
    - `b`: right-hand side.
    """
    matrix = jax.vmap(product)(jnp.eye(b.size, dtype=b.dtype))
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix + matrix.T) / 2.0)
    # An eigenvalue of 0 may be rounded to one below.
    least = -b.size * jnp.finfo(b.dtype).eps * jnp.max(values)
    inverse = jnp.where(values >= least, 1.0 / (1.0 + jnp.maximum(values, 0.0)), 0.0)

    def solve(_, b):
        return vectors @ (inverse * (vectors.T @ b))

    # Its derivatives are those of a solution; of eigenvectors they may be infinite.
    return jax.lax.custom_linear_solve(
        lambda z: z + (matrix + matrix.T) @ z / 2.0, b, solve, symmetric=True
    )


def solve(
    product: Product,
    b: Float[Array, " size"],
    *,
    max_dense: int,
    rtol: float = 1e-4,
    max_steps: int = 100,
) -> Float[Array, " size"]:
    """Solve densely for b of at most `max_dense` entries, else by conjugate gradients.

    **Arguments:**

    - `product`, `b`: as in `solve_dense`.
    - `rtol`, `max_steps`: as in `conjugate_gradients`.
    """
    if b.size <= max_dense:
        return solve_dense(product, b)
    return solve_cg(product, b, rtol=rtol, max_steps=max_steps)


class CGState(eqx.Module):
    """Solution, residual and direction of conjugate gradients, and how they ended."""

    z: Float[Array, " size"]
    residual: Float[Array, " size"]
    direction: Float[Array, " size"]
    square: Float[Array, ""]
    num_steps: Int[Array, ""]
    indefinite: Bool[Array, ""]


def conjugate_gradients(
    product: Product, b: Float[Array, " size"], *, rtol: float, max_steps: int
) -> CGState:
    r"""Solve by conjugate gradients, which stop at an eigenvalue of M below 0.

    A direction p with $p^T M p < 0$ shows that M is not positive semi-definite. No step
    is made along it, and the solution so far is returned, as in Steihaug's method. So z
    is never larger than b, whatever the matrix.

    Reference: *The Conjugate Gradient Method and Trust Regions in Large Scale
    Optimization*, Steihaug, 1983.

    **Arguments:**

    - `product`: multiplies a vector with M.
    - `b`: right-hand side.
    - `rtol`: relative size of the residual at which to stop.
    - `max_steps`: largest number of products.
    """
    total = jnp.vdot(b, b)

    def proceed(state):
        far = state.square > rtol**2 * total
        return far & (state.num_steps < max_steps) & ~state.indefinite

    def step(state):
        p = state.direction
        least = jnp.vdot(p, p)
        image = p + product(p)
        curvature = jnp.vdot(p, image)
        # Rounding makes a curvature of 0 negative where M has large eigenvalues.
        indefinite = curvature < 0.99 * least
        length = jnp.where(indefinite, 0.0, state.square / curvature)
        z = state.z + length * p
        residual = state.residual - length * image
        square = jnp.vdot(residual, residual)
        direction = residual + square / state.square * p
        count = state.num_steps + 1
        return CGState(z, residual, direction, square, count, indefinite)

    no = jnp.asarray(False)
    start = CGState(jnp.zeros_like(b), b, b, total, jnp.asarray(0), no)
    return jax.lax.while_loop(proceed, step, start)


def solve_cg(
    product: Product, b: Float[Array, " size"], *, rtol: float, max_steps: int
) -> Float[Array, " size"]:
    """Return the solution of `conjugate_gradients`, with its derivatives."""

    def solve(matvec, b):
        def inner(z):
            return matvec(z) - z

        return conjugate_gradients(inner, b, rtol=rtol, max_steps=max_steps).z

    return jax.lax.custom_linear_solve(
        lambda z: z + product(z), b, solve, symmetric=True
    )


def solve_lineax(
    product: Product, b: Float[Array, " size"], solver: lx.AbstractLinearSolver
) -> Float[Array, " size"]:
    """Solve by a solver of lineax, NaN where it fails.

    **Arguments:**

    - `product`, `b`: as in `solve_dense`.
    - `solver`: such as `lineax.GMRES(rtol, atol)`.
    """
    tags = (lx.symmetric_tag, lx.positive_semidefinite_tag)
    struct = jax.ShapeDtypeStruct(b.shape, b.dtype)
    operator = lx.FunctionLinearOperator(lambda z: z + product(z), struct, tags)
    found = lx.linear_solve(operator, b, solver, throw=False)
    return jnp.where(found.result == lx.RESULTS.successful, found.value, jnp.nan)


def pseudo_solve(
    product: Product, b: Float[Array, " size"], *, max_dense: int
) -> Float[Array, " size"]:
    r"""Return $G^+ b$ for $G = A A^T$, which may be singular, and b in its range.

    **Arguments:**

    - `product`: multiplies a vector with G.
    - `b`: right-hand side.
    - `max_dense`: largest size of a dense matrix; above, conjugate gradients.
    """
    if b.size <= max_dense:
        matrix = jax.vmap(product)(jnp.eye(b.size, dtype=b.dtype))
        values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(matrix))
        least = b.size * jnp.finfo(b.dtype).eps * jnp.max(values)
        there = values > least
        inverse = jnp.where(there, 1.0 / jnp.where(there, values, 1.0), 0.0)
        return vectors @ (inverse * (vectors.T @ b))
    return jax.scipy.sparse.linalg.cg(product, b, tol=1e-5)[0]
