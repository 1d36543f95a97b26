"""Turns arrays of any model into random leaves."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ... import tree
from ..._checks import path_name
from ..._types import Model, Where
from .._joint.learned_noise import LearnedNoise
from .._joint.prior import fan_in
from .._posterior.posterior import MeanFieldPosterior
from .random_leaves import Gaussian, is_random, mean_leaves, random_leaves
from .scale import is_traced

NORMALISATION = (
    eqx.nn.LayerNorm,
    eqx.nn.RMSNorm,
    eqx.nn.GroupNorm,
    eqx.nn.BatchNorm,
)


def weights(model: Model) -> PyTree[bool]:
    """What is random by default: all floating-point arrays except

    - those of normalisation layers: scales and shifts that follow a division by the
      data's own spread, where a Gaussian round zero means little;
    - the scale of `LearnedNoise`, which has a likelihood of its own to speak for it.

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
    """`jaxprob.tree.select`, where `None` means the default, `weights`."""
    return tree.select(model, weights(model) if where is None else where)


def bayesianize(
    model: Model,
    where: Where | None = None,
    *,
    scale: float | Callable[[str, Array], Any] = 0.1,
) -> MeanFieldPosterior:
    r"""Puts a Gaussian in the place of each chosen array of any Equinox module.

    Means start at the weights as they are, so a trained model is a warm start:
    $w \sim \mathcal N(w_0, \sigma_0^2)$ with $\sigma_0$ = `scale` over the square root
    of the fan-in, which disturbs the outputs of each layer by about `scale`.

    Reference for the start at trained weights: *Specifying weight priors in Bayesian
    deep neural networks with empirical Bayes*, Krishnan, Subedar and Tickoo, 2020.

    ```python
    posterior = bayesianize(eqx.nn.GRUCell(3, 8, key=key))
    cell = posterior.sample(key=key)            # an eqx.nn.GRUCell
    ```

    **Arguments:**

    - `model`: any Equinox module, or any pytree. Random leaves that it holds are kept.
    - `where`: which leaves (see `jaxprob.tree`); by default all but the parameters of
        normalisation layers and of `LearnedNoise`.
    - `scale`: of the start, relative to one over the square root of the fan-in; or a
        function `(path, leaf) -> standard deviation`, taken as it is.

    **Returns:** a posterior; its `sample(key)` is a model of the same class.

    **Raises:** `ValueError` when nothing is chosen or a scale is not positive,
    `TypeError` for a complex leaf.
    """
    flags = choose(mean_leaves(model), where)

    def place(path, node, flag):
        if is_random(node) or not flag:
            return node
        name = path_name(path)
        if jnp.iscomplexobj(node):
            raise TypeError(
                f"{name} is {node.dtype}: a Gaussian leaf is real. Leave it out of "
                "`where`, or store its real and imaginary parts."
            )
        # NumPy's double precision is not JAX's, which warns where it is asked for it.
        node = jnp.asarray(node)
        return Gaussian.of(node, _initial_scale(scale, name, node))

    out = jax.tree_util.tree_map_with_path(place, model, flags, is_leaf=is_random)
    if not random_leaves(out):
        raise nothing_random("where", where, model)
    return MeanFieldPosterior(out)


def nothing_random(name: str, where: Where | None, model: Model) -> ValueError:
    """The error of a choice that means nothing, with what there is to choose from."""
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


def _initial_scale(scale, name, leaf):
    if callable(scale):
        own = scale(name, leaf)
        if not is_traced(own) and not (np.asarray(own) > 0).all():
            raise ValueError(
                f"scale gives {own} for {name}: a standard deviation is positive. To "
                "leave the leaf as it is, leave it out of `where`."
            )
        return own
    if not scale > 0:
        raise ValueError(f"scale={scale}: a standard deviation is positive")
    return scale / fan_in(leaf) ** 0.5
