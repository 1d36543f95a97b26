"""Choice of the leaves of a model that are random."""

import equinox as eqx
import jax
from jaxtyping import PyTree

from ... import tree
from ..._types import Model, Where
from .learned_noise import LearnedNoise
from .unconstrained import constrained, is_unconstrained

NORMALISATION = (
    eqx.nn.LayerNorm,
    eqx.nn.RMSNorm,
    eqx.nn.GroupNorm,
    eqx.nn.BatchNorm,
)


def weights(model: Model) -> PyTree[bool]:
    """Return the default choice of random leaves: all floating-point arrays except

    - those of normalisation layers: scales and shifts that follow a division by the
      data's own spread, where a Gaussian around zero means little;
    - the scale of `LearnedNoise`, which only the likelihood should determine.

    Both are then optimised. `where=True` makes them random too.
    """

    def keep(node):
        if isinstance(node, NORMALISATION):
            return jax.tree.map(lambda _: False, node)
        if isinstance(node, LearnedNoise):
            flags = jax.tree.map(lambda _: False, node)
            return eqx.tree_at(lambda n: n.model, flags, weights(node.model))
        return eqx.is_inexact_array(node)

    return jax.tree.map(
        keep, model, is_leaf=lambda n: isinstance(n, (*NORMALISATION, LearnedNoise))
    )


def choose(model: Model, where: Where | None) -> PyTree[bool]:
    """Return `select`, where `None` means the default, `weights`."""
    return select(model, weights(constrained(model)) if where is None else where)


def select(model: Model, where: Where) -> PyTree[bool]:
    """Return `jaxprob.tree.select` of the constrained model, for a model in any
    coordinates.

    A leaf in unconstrained coordinates is chosen by its own path and value.
    """
    flags = tree.select(constrained(model), where)
    return jax.tree.map(
        lambda node, flag: jax.tree.map(lambda _: flag, node),
        model,
        flags,
        is_leaf=is_unconstrained,
    )


def nothing_random(name: str, where: Where | None, model: Model) -> ValueError:
    """Return the error of an empty choice; it lists the leaves to choose from."""
    leaves = [p for p, a in tree.paths(model).items() if eqx.is_inexact_array(a)]
    if not leaves:
        return ValueError(
            f"{name}={where!r} makes no leaf random: the model has no floating-point "
            "array, so there is nothing to infer"
        )
    listing = ", ".join(leaves[:8]) + (", ..." if len(leaves) > 8 else "")
    return ValueError(
        f"{name}={where!r} makes no leaf random, and there is nothing to infer. Choose "
        f"among {listing}; True means all of them"
    )
