"""Edges of priors that their supports do not declare."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ...tree._ravel import ravel
from .._joint.prior import Prior, density, with_priors

MOST_DRAWS = 50
REACH = (-3.0, -1.0, 1.0, 3.0)
"""Distances from a draw at which the prior is looked at, in standard deviations."""


def undeclared_edge(
    prior: Prior, params: PyTree, draws: Float[Array, "draws dim"]
) -> str | None:
    """Return a sentence about a leaf whose prior ends next to the draws.

    Leaves move in coordinates in which the declared support is all real numbers, so a
    density of zero there is an edge that the distribution does not declare. A chain
    cannot cross it, and diverges.

    **Arguments:**

    - `prior`: one distribution, or one for each leaf.
    - `params`: random leaves, which give structure and coordinates.
    - `draws`: ravelled coordinates.
    """
    draws = draws[-MOST_DRAWS:]
    step = jnp.std(draws, axis=0) + jnp.finfo(draws.dtype).eps * jnp.abs(draws[-1])
    steps = jnp.asarray(REACH, draws.dtype)[:, None] * step[None]
    near = (draws[:, None] + steps[None]).reshape(-1, draws.shape[1])
    fine = np.asarray(_finite(prior, params, near))
    named = [(path, p) for path, _, p in with_priors(prior, params)]
    for (path, p), here in zip(named, fine.T, strict=True):
        if not here.all():
            return (
                f"The prior of {path}, {type(p).__name__}, has no density in "
                f"{np.mean(~here):.0%} of places next to the draws: it has an edge, "
                f"and its support is declared as {p.support}. Give a distribution "
                "that declares it (a transform takes domain=constraints.positive), and "
                "the chain moves in unconstrained coordinates"
            )
    return None


@eqx.filter_jit
def _finite(prior, params, points):
    unravel = ravel(params)[1]

    def one(point):
        values = unravel(point)
        terms = [density(p, leaf) for _, leaf, p in with_priors(prior, values)]
        return jnp.isfinite(jnp.stack([jnp.asarray(t) for t in terms]))

    return jax.vmap(one)(points)
