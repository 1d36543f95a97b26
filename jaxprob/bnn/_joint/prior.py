"""Priors: one numpyro distribution for each leaf of a model."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._checks import path_name
from ...tree._promotion import lenient_promotion
from ...tree._single import single
from .._weights.edge import bijection
from .._weights.random_leaves import is_random
from .._weights.unconstrained import is_unconstrained
from .gaussian_prior import GaussianPrior
from .unconstrained_prior import unconstrained_prior

Prior: TypeAlias = dist.Distribution | Callable[[str, Array], dist.Distribution]
"""One distribution for all leaves, or a function `(path, leaf) -> distribution`."""


def prior_at(prior: Prior, path: str, leaf: Any) -> dist.Distribution:
    """Return the prior of one leaf.

    **Raises:** `TypeError` when it is not a numpyro distribution, `ValueError` when its
    shape does not broadcast to the leaf's; both name the leaf.
    """
    out = prior
    if not isinstance(prior, dist.Distribution):
        if not callable(prior):
            raise TypeError(
                f"prior={prior!r}: give a numpyro distribution, or a function "
                "(path, leaf) -> distribution"
            )
        out = prior(path, leaf)
    if not isinstance(out, dist.Distribution):
        raise TypeError(
            f"the prior of {path} is {out!r}: a numpyro distribution is needed"
        )
    shape = out.batch_shape + out.event_shape
    try:
        fits = jnp.broadcast_shapes(shape, leaf.shape) == tuple(leaf.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"the prior of {path} has shape {shape}, the leaf {leaf.shape}: a scalar "
            "distribution means the same prior for each entry"
        )
    return out


def density(p: dist.Distribution, leaf: Array) -> Float[Array, ""]:
    """Return the log-density of a leaf, summed over its entries, in nats."""
    with lenient_promotion():
        return jnp.sum(p.log_prob(single(leaf)))


def is_prior_leaf(node: Any) -> bool:
    """Return whether a node of a tree has one prior: a random or unconstrained leaf."""
    return is_random(node) or is_unconstrained(node)


def leaf_prior(
    prior: Prior, path: str, node: Any, *, temperature: float = 1.0
) -> dist.Distribution:
    """Return the prior of a leaf in the coordinates in which the tree holds it.

    **Arguments:**

    - `prior`: one distribution, or one for each leaf.
    - `path`: of the leaf.
    - `node`: an array, a random leaf, or one in unconstrained coordinates.
    - `temperature`: of the joint density.
    """
    if not is_unconstrained(node):
        return prior_at(prior, path, node)
    value = jax.ShapeDtypeStruct(node.shape, node.coordinates.dtype)
    p = prior_at(prior, path, value)
    with lenient_promotion():
        return unconstrained_prior(p, bijection(node.edge), temperature)


def with_priors(
    prior: Prior, params: PyTree, *, temperature: float = 1.0
) -> Iterator[tuple[str, Any, dist.Distribution]]:
    """Yield path, coordinates and prior of all arrays and random leaves of a tree.

    Of a `GaussianPrior` these are the marginals.

    **Arguments:** as in `leaf_prior`.
    """
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_prior_leaf)
    for place, node in nodes:
        held = node.coordinates if is_unconstrained(node) else node
        if is_random(held) or eqx.is_inexact_array(held):
            path = path_name(place)
            yield path, held, leaf_prior(prior, path, node, temperature=temperature)


def log_prior(
    prior: Prior, params: PyTree, *, temperature: float = 1.0
) -> Float[Array, ""]:
    r"""Return the log prior density of all floating-point arrays of a tree, in nats.

    **Arguments:**

    - `prior`: one distribution, or one for each leaf.
    - `params`: a model, or the part of it that has a prior (`None` elsewhere). Of a
        leaf in unconstrained coordinates it is their density, with the Jacobian.
    - `temperature`: $T$ of a joint density that is divided by T afterwards; the
        Jacobian is multiplied by it, so that it is left as it is.
    """
    if isinstance(prior, GaussianPrior):
        return prior.log_prob(params, temperature=temperature)
    terms = [
        density(p, leaf)
        for _, leaf, p in with_priors(prior, params, temperature=temperature)
        if not is_random(leaf)
    ]
    return jnp.asarray(sum(terms, start=0.0))
