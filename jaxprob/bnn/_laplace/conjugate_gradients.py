r"""Conjugate gradients for several right-hand sides, a product with all in each step.

`lineax.CG` runs inside of one program, and a product here is a pass over a data set
that need not fit into one: the loop is one of Python, and each step a program.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

RESTARTS = 5
"""Rounds of conjugate gradients at most, each from the residual of the one before."""

DELAY = 2
"""Steps whose removal shows how far a quadrature has converged."""


class Convergence(NamedTuple):
    r"""Facts about each solution of `conjugate_gradients`.

    **Fields:**

    - `residuals`: $\|b - A x\| / \|b\|$ in the norm of the preconditioner's inverse,
        of a product with x and not of the recursion.
    - `products`: products with A.
    - `quadratures`: Gauss quadratures of $b^\top A^{-1} \log(M^{-1} A) \, b$. Their
        mean over $b \sim \mathcal N(0, A)$ is $\log |M^{-1} A|$.
    - `truncations`: how much the last `DELAY` steps changed each of them.
    """

    residuals: Float[np.ndarray, " vectors"]
    products: int
    quadratures: Float[np.ndarray, " vectors"]
    truncations: Float[np.ndarray, " vectors"]


def conjugate_gradients(
    product: Callable[[Array], Array],
    b: Float[Array, "vectors dim"],
    scale: Float[Array, " dim"],
    *,
    tolerance: float,
    max_steps: int,
) -> tuple[Float[Array, "vectors dim"], Convergence]:
    r"""Solve $A x = b$ for a symmetric positive definite A.

    Where rounding has made the recursion's residual smaller than that of x, it begins
    again at x. The coefficients of the first round are the tridiagonal matrix of
    Lanczos' method from $M^{-1/2} b$, whose eigenvalues and eigenvectors are the nodes
    and weights of a Gauss quadrature in the spectrum of A: a log-determinant costs no
    further product.

    References: *Methods of conjugate gradients for solving linear systems*, Hestenes
    and Stiefel, 1952; *Matrices, moments and quadrature with applications*, Golub and
    Meurant, 2010.

    **Arguments:**

    - `product`: `product(vectors) -> A times each`.
    - `b`: right-hand sides.
    - `scale`: the diagonal of the preconditioner M.
    - `tolerance`: of the residuals, as `Convergence` has them.
    - `max_steps`: products at most.

    **Returns:** x, and its convergence.

    **Raises:** `FloatingPointError` where a number is not finite.
    """
    x, residual, scale = jnp.zeros_like(b), b, scale[None]
    start = squares = _squares(residual, scale)
    target = tolerance**2 * start
    history: list[tuple[np.ndarray, np.ndarray]] = []
    products = 0
    for rounds in range(RESTARTS):
        state = _begin(x, residual, scale)
        # A product is left for the residual of x itself.
        while np.any(state.squares > target) and products < max_steps - 1:
            image = product(state.direction)
            products += 1
            state, alpha, beta = _step(state, image, scale, target)
            if not np.all(np.isfinite(state.squares)):
                raise FloatingPointError(
                    "a product with the precision of the posterior is not finite: look "
                    "at the scale of the data, or train with a lower learning rate"
                )
            if rounds == 0:
                history.append((np.asarray(alpha), np.asarray(beta)))
        x = state.x
        residual = b - product(x)
        products += 1
        before, squares = squares, _squares(residual, scale)
        done = np.all(squares <= target) or products >= max_steps - 1
        if done or np.all(squares > 0.25 * before):
            break
    found = [_quadratures(history, start, drop) for drop in (0, DELAY)]
    return x, Convergence(
        np.sqrt(np.asarray(squares / jnp.where(start > 0, start, 1.0))),
        products,
        found[0],
        np.abs(found[0] - found[1]),
    )


class _State(NamedTuple):
    x: Array
    residual: Array
    direction: Array
    squares: Array


@jax.jit
def _squares(residual, scale):
    return jnp.sum(residual**2 / scale, axis=1)


@jax.jit
def _begin(x, residual, scale):
    # Copies, because a step gives away the memory of the state before.
    x, residual = jnp.copy(x), jnp.copy(residual)
    direction = residual / scale
    return _State(x, residual, direction, jnp.sum(residual * direction, axis=1))


@functools.partial(jax.jit, donate_argnums=0)
def _step(state: Any, image, scale, target):
    """One step, of the vectors that have not converged yet."""
    x, residual, direction, squares = state
    zero = jnp.zeros_like(squares)
    active = squares > target
    curvature = jnp.sum(direction * image, axis=1)
    alpha = jnp.where(active, squares / jnp.where(active, curvature, 1.0), zero)
    x = x + alpha[:, None] * direction
    residual = residual - alpha[:, None] * image
    after = jnp.where(active, jnp.sum(residual**2 / scale, axis=1), squares)
    beta = jnp.where(active, after / jnp.where(active, squares, 1.0), zero)
    direction = residual / scale + beta[:, None] * direction
    return _State(x, residual, direction, after), alpha, beta


def _quadratures(history, start, drop):
    """Gauss quadratures from all steps but the last ones, for each vector."""
    found = []
    for index, square in enumerate(np.asarray(start, np.float64)):
        pairs = [(a[index], b[index]) for a, b in history if a[index] > 0]
        pairs = pairs[: max(1, len(pairs) - drop)]
        found.append(square * _log_over_node(np.asarray(pairs, np.float64)))
    return np.asarray(found)


def _log_over_node(pairs):
    r"""The weighted sum of $\log \theta / \theta$ over the nodes of one vector."""
    if not len(pairs):
        return 0.0
    alpha, beta = pairs.T
    diagonal = 1.0 / alpha
    diagonal[1:] += beta[:-1] / alpha[:-1]
    off = np.sqrt(beta[:-1]) / alpha[:-1]
    matrix = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    nodes, vectors = np.linalg.eigh(matrix)
    return float(np.sum(vectors[0] ** 2 * np.log(nodes) / nodes))
