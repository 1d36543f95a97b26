"""Inference methods by name, with settings for small tables."""

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
    method: Method, joint: bnn.LogJoint, num_steps: int, learning_rate: float
) -> bnn.AbstractInference:
    """The inference method that a name means.

    **Raises:** `ValueError` for a name that means none.
    """
    if callable(method):
        return method(joint, num_steps)
    point = _point(joint, num_steps, learning_rate)
    if method == "map":
        return point
    if method == "ensemble":
        return bnn.DeepEnsemble(point, num_members=5)
    if method == "laplace":
        return bnn.Laplace(point, structure="kronecker")
    if method == "mean-field-vi":
        return bnn.MeanFieldVI(joint, point.optimizer, estimator="local")
    raise ValueError(
        f"method={method!r}: it is 'ensemble', 'map', 'laplace', 'mean-field-vi', or a "
        "function (log_joint, num_steps) -> inference method"
    )
