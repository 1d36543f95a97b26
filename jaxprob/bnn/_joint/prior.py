"""Priors: one numpyro distribution for each leaf of a model."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ... import tree as trees
from ...tree._single import single

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


@contextlib.contextmanager
def lenient_promotion() -> Iterator[None]:
    """Allow implicit promotion: numpyro's mixtures mix dtypes and ranks."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def log_prior(prior: Prior, params: PyTree) -> Float[Array, ""]:
    """Return the log prior density of all floating-point arrays of a tree, in nats.

    **Arguments:**

    - `prior`: one distribution, or one for each leaf.
    - `params`: a model, or the part of it that has a prior (`None` elsewhere).
    """
    terms = [
        density(prior_at(prior, path, leaf), leaf)
        for path, leaf in trees.paths(params).items()
        if eqx.is_inexact_array(leaf)
    ]
    return jnp.asarray(sum(terms, start=0.0))
