"""Leaves whose prior has an edge, put into unconstrained coordinates."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..._checks import path_name
from ..._types import Model, Where
from .._weights.choice import choose
from .._weights.edge import bijection, edge_of
from .._weights.random_leaves import mean_leaves
from .._weights.scale import is_traced
from .._weights.unconstrained import Unconstrained
from .arguments import is_real, violates
from .prior import Prior, is_prior_leaf, prior_at


def unconstrained(model: Model, prior: Prior, where: Where | None = None) -> Model:
    r"""Return the model with `Unconstrained` leaves where the prior has an edge.

    A density of a joint over such leaves is that of their coordinates u, with the
    log-Jacobian of $w = T(u)$. T is numpyro's `biject_to` of the prior's support. Every
    method here calls this in `init` and returns models by `constrained`; a method
    outside of the package does the same.

    ```python
    free = unconstrained(model, log_joint.prior)
    value = log_joint(free, (x, y), key=key)     # a density of real coordinates
    model = constrained(free)
    ```

    **Arguments:**

    - `model`: with values inside of the supports. Leaves that are in unconstrained
        coordinates already stay as they are, and so do random leaves.
    - `prior`: one distribution, or one for each leaf.
    - `where`: the leaves that have the prior, as in `MAP`.

    **Raises:** `ValueError` for a value that lies outside or on the edge of a support,
    or for a support without a bijection; `TypeError` for a complex leaf. They name the
    leaf and the edge.
    """
    flags = choose(mean_leaves(model), where)

    def place(path, node, flag):
        if not flag or is_prior_leaf(node) or not eqx.is_inexact_array(node):
            return node
        name = path_name(path)
        if jnp.iscomplexobj(node):
            raise TypeError(
                f"{name} is {node.dtype}, and a prior is over real numbers: store real "
                "and imaginary parts, or leave it out of `random`"
            )
        p = prior_at(prior, name, node)
        if is_real(p.support):
            return node
        return _placed(name, jnp.asarray(node), p)

    return jax.tree_util.tree_map_with_path(
        place, model, _merged(flags, model), is_leaf=is_prior_leaf
    )


def _merged(flags: PyTree[bool], model: Model) -> PyTree:
    """The flags with one entry for each leaf in unconstrained coordinates."""
    return jax.tree.map(
        lambda node, flag: any(jax.tree.leaves(flag)),
        model,
        flags,
        is_leaf=is_prior_leaf,
    )


def _placed(name: str, value: Array, p: Any) -> Unconstrained:
    what = f"the prior of {name}, {type(p).__name__} with support {p.support},"
    try:
        edge = edge_of(p.support)
        bijection(edge)
    except (NotImplementedError, AttributeError):
        raise ValueError(
            f"{what} has an edge, and numpyro has no bijection from the real numbers "
            "onto that support (biject_to). Use a prior on the real line or with "
            "another support; or leave the leaf out of `random`"
        ) from None
    except TypeError as error:
        raise TypeError(f"{what} has an edge, and {error}") from error
    node = Unconstrained(value, edge, value.shape)
    if is_traced(value):
        return node.at(value)
    if bool(violates(p.support, value)):
        inside = np.asarray(p.support(np.asarray(value)))
        counted = f"{np.sum(~inside)} of {inside.size} entries lie outside"
        if inside.shape != value.shape:
            counted = "it lies outside"
        raise ValueError(
            f"{what} gives its value no density: {counted}. Start inside the support, "
            "or use a prior whose support contains it"
        )
    found = node.at(value)
    if not bool(jnp.all(jnp.isfinite(found.coordinates))):
        raise ValueError(
            f"{what} is given a value on the edge of its support, where the "
            "unconstrained coordinates are infinite. Start inside: between the bounds, "
            "or with distinct ordered values"
        )
    return found
