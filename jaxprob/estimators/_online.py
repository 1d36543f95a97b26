"""Recursive updates of the last layers of an estimator's networks."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist

from .. import bnn, tree
from .._checks import path_name
from ._compiled import Fitted

_NETWORKS = {"auto": "ensemble", "chains": "ensemble", "ensemble": "ensemble"}


_FIXED = 1e-3
"""Standard deviation of weights that do not move."""


def networks_of(method: Any) -> str:
    """Return the method that trains the networks of a stream.

    **Raises:** `ValueError` for one that does not end in networks.
    """
    if method == "map":
        return method
    if callable(method) or method not in _NETWORKS:
        raise ValueError(
            f"method={method!r}: partial_fit updates the last layers of trained "
            "networks. Give method='ensemble' or 'map'"
        )
    return _NETWORKS[method]


def is_online(fitted: Fitted) -> bool:
    """Return whether the posterior consists of Gaussians that can be updated."""
    posterior = fitted.posterior
    if not isinstance(posterior, bnn.Mixture):
        return False
    return all(isinstance(p, bnn.KalmanPosterior) for p in posterior.components)


def with_last_layers(
    fitted: Fitted,
    prior_scale: float,
    num_means: int | None,
    x: np.ndarray,
    targets: np.ndarray,
    weight: np.ndarray | None,
) -> Fitted:
    """Return the networks, each with the Gaussian over its last layer given the rows.

    **Arguments:**

    - `fitted`: with a posterior of finitely many networks.
    - `prior_scale`: as in `BNNRegressor`.
    - `num_means`: outputs of the last layer that have a posterior, where the others are
        the noise level; `None` for all.
    - `x`, `targets`, `weight`: the rows on which the networks were trained. These are
        linearised at the trained networks.
    """
    models = [eqx.nn.inference_mode(m) for m in _models(fitted.posterior)]
    starts = []
    for model in models:
        layer = _last_layer(model)
        prior = _prior(model, prior_scale, num_means)
        joint = bnn.LogJoint(fitted.likelihood, prior, 1)
        starts.append(bnn.KalmanPosterior.from_prior(model, joint, where=layer))
    return _updated(fitted, starts, models, x, targets, weight)


def with_rows(
    fitted: Fitted, x: np.ndarray, targets: np.ndarray, weight: np.ndarray | None
) -> Fitted:
    """Return the posterior after further rows; see `with_last_layers`."""
    members: Any = fitted.posterior
    return _updated(fitted, members.components, None, x, targets, weight)


def _updated(fitted, members, points, x, targets, weight):
    rows = fitted.scaler(x).astype(np.float32)
    weight = None if weight is None else weight.astype(np.float32)
    points = points or [None] * len(members)
    posterior = bnn.Mixture(
        [
            member.update(rows, targets, weight, linearisation_point=point)
            for member, point in zip(members, points, strict=True)
        ]
    )
    return Fitted(
        posterior, fitted.likelihood, fitted.scaler, fitted.key, fitted.num_samples
    )


def _prior(model, prior_scale, num_means):
    """The prior of the last layer: narrow at the trained noise level.

    An update of the logarithm of a scale by one linearisation goes far after one
    outlier, so that the noise level stays that of the first rows.
    """
    trained, plain = tree.paths(model), bnn.FanInNormal(prior_scale)

    def prior(path, leaf):
        p: Any = plain(path, leaf)
        if num_means is None or leaf.shape[0] <= num_means:
            return p
        mean = np.array(np.broadcast_to(p.loc, leaf.shape), np.float32)
        scale = np.array(np.broadcast_to(p.scale, leaf.shape), np.float32)
        mean[num_means:] = np.asarray(trained[path])[num_means:]
        scale[num_means:] = _FIXED
        return dist.Normal(mean, scale)

    return prior


def _models(posterior):
    if isinstance(posterior, bnn.Mixture):
        return [m for part in posterior.components for m in _models(part)]
    return [posterior.atom(i) for i in range(posterior.num_atoms)]


def _last_layer(model):
    """The path of the last linear layer; `True` for a model that is that layer."""
    nodes = jax.tree_util.tree_leaves_with_path(
        model, is_leaf=lambda node: isinstance(node, eqx.nn.Linear)
    )
    paths = [path_name(p) for p, node in nodes if isinstance(node, eqx.nn.Linear)]
    if not paths:
        raise ValueError(
            "the network has no eqx.nn.Linear, and partial_fit updates the last one: "
            "give network= a module that ends in one"
        )
    return paths[-1] or True
