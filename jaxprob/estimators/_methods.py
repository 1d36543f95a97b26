"""Inference methods by name, with settings for small tables."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import optax

from .. import bnn

Method: TypeAlias = str | Callable[[bnn.LogJoint, int], bnn.AbstractInference]
"""A name, or `method(log_joint, num_steps) -> inference`."""


def _point(joint, num_steps, rate):
    schedule = optax.cosine_decay_schedule(rate, num_steps, 0.05)
    return bnn.MAP(
        joint, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    )


def make_method(
    method: Method,
    likelihood: bnn.Likelihood,
    *,
    prior_scale: float,
    num_data: int,
    num_steps: int,
    learning_rate: float,
) -> bnn.AbstractInference:
    """Return the inference method of a name.

    The same name and settings return the same object, so that the folds of a
    cross-validation share one compiled program.

    **Raises:** `ValueError` for an unknown name.
    """
    if callable(method):
        return method(_joint(likelihood, prior_scale, num_data), num_steps)
    settings = (prior_scale, num_data, num_steps, learning_rate)
    return _named(method, likelihood, *settings)


def _joint(likelihood, prior_scale, num_data):
    return bnn.LogJoint(likelihood, bnn.FanInNormal(prior_scale), num_data=num_data)


@functools.lru_cache(maxsize=8)
def _named(method, likelihood, prior_scale, num_data, num_steps, learning_rate):
    joint = _joint(likelihood, prior_scale, num_data)
    point = _point(joint, num_steps, learning_rate)
    if method == "map":
        return point
    if method == "ensemble":
        return bnn.DeepEnsemble(point, num_members=5)
    if method == "laplace":
        return bnn.Laplace(point, structure="kronecker")
    if method == "mean_field_vi":
        return bnn.MeanFieldVI(joint, point.optimizer, estimator="local")
    raise ValueError(
        f"method={method!r}: give 'ensemble', 'map', 'laplace', 'mean_field_vi', or a "
        "function (log_joint, num_steps) -> inference method"
    )
