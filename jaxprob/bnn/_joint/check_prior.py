"""Check that a prior gives every leaf a density."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..._checks import path_name
from .._weights.random_leaves import is_random
from .._weights.scale import is_traced
from .._weights.unconstrained import is_unconstrained
from .arguments import is_real
from .gaussian_prior import GaussianPrior
from .prior import Prior, is_prior_leaf, leaf_prior


def check_prior(prior: Prior, params: PyTree) -> None:
    """Reject a prior that gives a leaf no density at its initial value.

    The Gaussian of a random leaf reaches every real number, so its prior has to be
    positive there, unless the leaf is in unconstrained coordinates.

    **Arguments:**

    - `prior`, `params`: as in `log_prior`.

    **Raises:** `ValueError`, or `TypeError` for a complex leaf; both name the leaf.
    """
    nodes = jax.tree_util.tree_leaves_with_path(params, is_leaf=is_prior_leaf)
    if isinstance(prior, GaussianPrior):
        prior.check_leaves(path_name(path) for path, _ in nodes)
    for path, node in nodes:
        name = path_name(path)
        if is_unconstrained(node):
            if node.coordinates is not None:
                leaf_prior(prior, name, node)
        elif is_random(node):
            _check_real(leaf_prior(prior, name, node), name)
        elif eqx.is_inexact_array(node):
            if jnp.iscomplexobj(node):
                raise TypeError(
                    f"{name} is {node.dtype}, and a prior is over real numbers: store "
                    "real and imaginary parts, or leave it out of `random`"
                )
            _check_support(leaf_prior(prior, name, node), name, node)


def _check_support(p: Any, name: str, leaf: Any) -> None:
    if is_traced(leaf):
        return
    inside = np.asarray(p.support(np.asarray(leaf)))
    if not inside.all():
        raise ValueError(
            f"the prior of {name}, {type(p).__name__} with support {p.support}, gives "
            f"its value no density: {np.sum(~inside)} of {inside.size} entries "
            "lie outside. Start inside the support or use a prior on the real line."
        )


def _check_real(p: Any, name: str) -> None:
    if not is_real(p.support):
        raise ValueError(
            f"the prior of {name}, {type(p).__name__}, has the support {p.support}, "
            "and its Gaussian posterior, which the model holds already (as "
            "BayesianLinear does), reaches all real numbers. Give the method arrays, "
            "bnn.mean_leaves(model), for whose leaf it takes unconstrained coordinates;"
            " or use a prior on the real line."
        )
