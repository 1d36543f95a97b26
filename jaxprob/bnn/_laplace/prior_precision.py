r"""Precision $\tau$ of the prior at the mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ... import tree
from ..._checks import path_name
from ...tree._ravel import ravel
from ...tree._single import single
from .._joint.prior import Prior, density, prior_at
from .._weights.scale import is_traced


def prior_precision(prior: Prior, params: PyTree) -> Float[Array, " dim"]:
    """Return minus the second derivatives of the log prior in all weights.

    **Raises:** `ValueError` where one is not positive.
    """
    vector, leaves = _precisions(prior, params)
    for name, tau in tree.paths(leaves).items():
        if not is_traced(tau) and (np.asarray(tau) <= 0).any():
            p = prior_at(prior, name, tree.get(params, name))
            raise ValueError(
                f"the log prior of {name}, {type(p).__name__}, is not concave at "
                "the mode: Laplace needs one that is, such as a Normal"
            )
    return vector


@eqx.filter_jit
def _precisions(prior, params):
    """Minus the second derivatives of the log prior: as one vector, and by leaf."""

    def one(path, leaf):
        name = path_name(path)
        p = prior_at(prior, name, leaf)
        if p.event_dim:
            raise ValueError(
                f"the prior of {name} correlates its entries: Laplace needs a prior "
                "that is independent in each entry, such as a Normal"
            )
        leaf = single(leaf)

        def slope(leaf):
            return jax.grad(lambda leaf: density(p, leaf))(leaf)

        # Entries are independent, so the Hessian times ones is its diagonal.
        return -jax.jvp(slope, (leaf,), (jnp.ones_like(leaf),))[1]

    leaves = jax.tree_util.tree_map_with_path(one, params)
    return ravel(leaves)[0], leaves
