r"""Precision $\tau$ of the prior at the mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.gaussian_prior import GaussianPrior
from .._joint.prior import Prior, density, is_prior_leaf, leaf_prior, prior_at
from .._weights.scale import is_traced
from .._weights.unconstrained import is_unconstrained
from .curvature import AbstractCurvature
from .curvature_covariance import split_precision
from .sum_of_curvatures import check_sum, sum_of_curvatures

CORRELATED = 1e-3
"""Size of an entry off the diagonal, relative to it, that counts as a correlation."""


def prior_precision(
    prior: Prior, params: PyTree, *, temperature: float = 1.0
) -> Float[Array, " dim"]:
    """Return minus the second derivatives of the log prior in all weights.

    Of a leaf in unconstrained coordinates they are those of the density there. A
    Dirichlet or LKJ prior correlates the entries of its leaf and not its coordinates.
    Of a `GaussianPrior` with correlations it is the diagonal part of the precision, and
    `posterior_precision` adds the other part to the curvature.

    **Arguments:**

    - `prior`, `params`: as in `log_prior`.
    - `temperature`: of the joint density.

    **Raises:** `ValueError` where one is not positive, or for a prior that correlates
    entries or coordinates.
    """
    if isinstance(prior, GaussianPrior):
        return _of_gaussian(prior, params, temperature)[1]
    vector, parts = _precisions(prior, params, temperature)
    for (path, node), (tau, correlation) in zip(_leaves(params), parts, strict=True):
        name = path_name(path)
        if is_traced(tau):
            continue
        if np.asarray(correlation) > CORRELATED:
            raise _correlates(name, "coordinates")
        if (np.asarray(tau) <= 0).any():
            p = prior_at(prior, name, node)
            raise ValueError(
                f"the log prior of {name}, {type(p).__name__}, is not concave at "
                "the mode: Laplace needs one that is, such as a Normal"
            )
    return vector


def posterior_precision(
    curvature: AbstractCurvature,
    prior: Prior,
    params: PyTree,
    *,
    temperature: float = 1.0,
) -> tuple[AbstractCurvature, Float[Array, " dim"]]:
    r"""Return $G$ and $\tau$ whose sum is the precision of the posterior.

    G is the curvature, or with a correlated `GaussianPrior` the sum of the curvature
    and that of the prior.

    **Arguments:** as in `prior_precision`; and the curvature of the likelihood.
    """
    if not isinstance(prior, GaussianPrior):
        return curvature, prior_precision(prior, params, temperature=temperature)
    extra, tau = _of_gaussian(prior, params, temperature)
    if extra is None:
        return curvature, tau
    return sum_of_curvatures(curvature, extra), tau


def check_structure(prior: Prior, structure: str) -> None:
    """Raise `ValueError` where a structure cannot hold the correlations of a prior."""
    if isinstance(prior, GaussianPrior):
        extra, _ = split_precision(prior.covariance)
        if extra is not None:
            check_sum(structure, extra)


def _of_gaussian(prior, params, temperature):
    """The parts of the precision of a Gaussian prior, in the dtype of the weights."""
    names = [path_name(path) for path, _ in _leaves(params)]
    prior.check_leaves(names)
    if temperature != 1.0 and prior.has_edges:
        raise ValueError(
            f"temperature={temperature} with a GaussianPrior over a leaf that has an "
            "edge: Laplace takes it at temperature 1; NUTS, HMC and MAP take any"
        )
    dtype = ravel(params)[0].dtype
    parts = split_precision(prior.covariance)
    return jax.tree.map(lambda a: a.astype(dtype), parts)


def _leaves(params):
    return jax.tree_util.tree_leaves_with_path(params, is_leaf=is_prior_leaf)


@eqx.filter_jit
def _precisions(prior, params, temperature):
    """Minus the second derivatives: as one vector, and by leaf with the largest
    correlation in it.
    """
    parts = []
    for path, node in _leaves(params):
        name = path_name(path)
        p = leaf_prior(prior, name, node, temperature=temperature)
        if is_unconstrained(node):
            parts.append(_in_coordinates(p, single(node.coordinates)))
        elif p.event_dim:
            raise _correlates(name, "entries")
        else:
            parts.append((_of_entries(p, single(node)), jnp.zeros(())))
    return ravel([tau for tau, _ in parts])[0], parts


def _of_entries(p: dist.Distribution, leaf: Array) -> Array:
    def slope(leaf):
        return jax.grad(lambda leaf: density(p, leaf))(leaf)

    # Entries are independent, so the Hessian times ones is its diagonal.
    return -jax.jvp(slope, (leaf,), (jnp.ones_like(leaf),))[1]


def _in_coordinates(p: dist.Distribution, u: Array) -> tuple[Array, Array]:
    """The diagonal, and the largest entry off it relative to the diagonal."""
    if not p.event_dim:
        return _of_entries(p, u), jnp.zeros(())
    flat, shape = u.ravel(), u.shape
    matrix = -jax.hessian(lambda flat: density(p, flat.reshape(shape)))(flat)
    tau = jnp.diag(matrix)
    scale = jnp.sqrt(jnp.abs(tau[:, None] * tau[None]))
    off = jnp.abs(matrix - jnp.diag(tau)) / jnp.maximum(scale, jnp.finfo(u.dtype).tiny)
    return tau.reshape(shape), jnp.max(off)


def _correlates(name: str, what: str) -> ValueError:
    return ValueError(
        f"the prior of {name} correlates its {what}: Laplace needs a prior that is "
        "independent in each of them, such as a Normal, a Dirichlet or an LKJ; NUTS, "
        "HMC and FullRankVI take any"
    )
