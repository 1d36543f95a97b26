"""Check that a prior gives every leaf a density."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import PyTree

from ..._checks import path_name
from .._weights.random_leaves import is_random
from .._weights.scale import is_traced
from .prior import Prior, prior_at


def check_prior(prior: Prior, params: PyTree, *, reach: str | None = None) -> None:
    """Reject a prior that gives a leaf no density at its initial value.

    The Gaussian of a random leaf reaches every real number, so its prior has to be
    positive there.

    **Arguments:**

    - `prior`, `params`: as in `log_prior`.
    - `reach`: the part of the method that reaches every real number, if there is one,
        for the error message. It would cross the edge of a support, and numpyro's
        densities do not end there.

    **Raises:** `ValueError`, or `TypeError` for a complex leaf; both name the leaf.
    """
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_random)
    for path, node in nodes:
        name = path_name(path)
        if is_random(node):
            _check_real(prior_at(prior, name, node), name, "its Gaussian posterior")
        elif eqx.is_inexact_array(node):
            if jnp.iscomplexobj(node):
                raise TypeError(
                    f"{name} is {node.dtype}, and a prior is over real numbers: store "
                    "real and imaginary parts, or leave it out of `random`"
                )
            p = prior_at(prior, name, node)
            _check_support(p, name, node)
            if reach is not None:
                _check_real(p, name, reach)


def _check_support(p, name, leaf):
    if is_traced(leaf):
        return
    inside = np.asarray(p.support(np.asarray(leaf)))
    if not inside.all():
        raise ValueError(
            f"the prior of {name}, {type(p).__name__} with support {p.support}, gives "
            f"its value no density: {np.sum(~inside)} of {inside.size} entries "
            "lie outside. Start inside the support or use a prior on the real line."
        )


def _check_real(p, name, what):
    if not _is_real(p.support):
        raise ValueError(
            f"the prior of {name}, {type(p).__name__}, has the support {p.support}, "
            f"and {what} reaches all real numbers. Use a prior on the real line: of a "
            "positive parameter let the leaf be its logarithm. NUTS and HMC take any."
        )


def _is_real(support):
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is dist.constraints.real
