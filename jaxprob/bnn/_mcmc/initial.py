"""First positions of chains."""

import warnings
from typing import Any, Literal, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._types import Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._inference.inference import Roles
from .._joint.prior import Prior
from .._joint.sample_prior import sample_prior
from .._posterior.posterior import AbstractPosterior
from .._weights.learned_noise import LearnedNoise
from .._weights.unconstrained import constrained, coordinates_of
from .multi_start import MultiStart
from .weight_vector import WeightVector

Initial: TypeAlias = Literal["prior", "model", "map"] | MultiStart | AbstractPosterior
"""Chains start at draws from the prior, all at the model, at the best of several modes,
or at a posterior: chain i at its model i, or at a draw where it has no finite list of
models."""


def check_initial(initial: Any) -> None:
    """Raise `ValueError` unless chains can start there."""
    if isinstance(initial, AbstractPosterior | MultiStart):
        return
    if initial not in ("prior", "model", "map"):
        raise ValueError(
            f"initial={initial!r}: it is 'prior', 'model', 'map', a MultiStart or a "
            "posterior, such as that of an ensemble"
        )


def search_of(initial: Initial) -> MultiStart | None:
    """Return the search for modes that a start needs; `None` without one."""
    if isinstance(initial, MultiStart):
        return initial
    return MultiStart() if isinstance(initial, str) and initial == "map" else None


def initial_positions(
    model: Model,
    random: Where | None,
    initial: Initial,
    *,
    prior: Prior,
    num_chains: int,
    key: PRNGKey,
) -> Float[Array, "chains dim"]:
    """Return the random leaves with which each chain starts, ravelled.

    **Arguments:**

    - `model`: gives the structure and the coordinates, and the start for `"model"`.
    - `random`: leaves that the chains move.
    - `initial`: see `Initial`.
    - `prior`: of the random leaves.
    - `num_chains`: how many chains start.
    - `key`: of the draws.

    **Raises:** `ValueError` for a posterior over another model, and for a search, which
    needs the data.
    """
    if search_of(initial) is not None:
        raise ValueError(
            f"initial={initial!r} searches for modes, for which it needs the data: "
            "run_chains(method, model, data) does that. For other loops give "
            "the posterior of an ensemble, DeepEnsemble(MAP(...), 4)"
        )
    params = WeightVector.of(model, random).params
    plain = constrained(model)
    flags = Roles.of(plain, random, False).random
    if isinstance(initial, AbstractPosterior):
        _check_same_model(initial, plain)

    def start(index, key):
        if isinstance(initial, AbstractPosterior):
            atoms = initial.num_atoms
            if atoms is None:
                drawn = initial.sample(key=key)
            else:
                drawn = initial.atom(index % atoms)
        elif initial == "model":
            drawn = model
        else:
            drawn = sample_prior(plain, prior, key=key, where=flags)
        return ravel(coordinates_of(params, drawn))[0]

    return jax.vmap(start)(jnp.arange(num_chains), example_keys(key, num_chains))


def warn_of_fixed_noise(model: Model) -> None:
    """Warn of the scale of a `LearnedNoise`, which is not random by default."""
    nodes: list[Any] = jax.tree.leaves(model, is_leaf=_is_noise)
    for node in filter(_is_noise, nodes):
        scale = np.array2string(np.asarray(node.scale), precision=3)
        warnings.warn(
            "a chain moves random leaves alone, and the scale of LearnedNoise is no "
            f"random leaf by default: it stays at {scale}. Write random=True to sample "
            "it too, under the prior of the other leaves; or, if it was trained "
            "before, random=... with the leaves to sample",
            stacklevel=5,
        )


def _is_noise(node):
    return isinstance(node, LearnedNoise)


def _check_same_model(posterior, model):
    if _layout(eqx.filter_eval_shape(posterior.mean)) != _layout(model):
        raise ValueError(
            "initial is a posterior over another model than the one given: their "
            "classes, settings or shapes differ. Give the posterior of a method that "
            "was trained on this model"
        )


def _layout(model: PyTree):
    arrays = [leaf for leaf in jax.tree.leaves(model) if _is_array(leaf)]
    return jax.tree.structure(model), [jnp.shape(leaf) for leaf in arrays]


def _is_array(leaf):
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
