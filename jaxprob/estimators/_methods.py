"""Inference methods by name, with settings for small tables."""

import functools
from collections.abc import Callable
from typing import TypeAlias

import optax

from .. import bnn

Method: TypeAlias = str | Callable[[bnn.LogJoint, int], bnn.AbstractInference]
"""A name, or `method(log_joint, num_steps) -> inference`."""

NAMES = ("auto", "chains", "ensemble", "map", "laplace", "mean_field_vi")


def make_method(
    method: Method,
    likelihood: bnn.Likelihood,
    *,
    prior_scale: float,
    num_data: int,
    num_steps: int,
    num_members: int,
    learning_rate: float,
) -> bnn.AbstractInference:
    """Return the inference method of a name; for `"chains"` that of their starts.

    The same name and settings return the same object, so that the folds of a
    cross-validation share one compiled program.

    **Raises:** `ValueError` for an unknown name.
    """
    if callable(method):
        return method(make_joint(likelihood, prior_scale, num_data), num_steps)
    settings = (prior_scale, num_data, num_steps, num_members, learning_rate)
    return _named(method, likelihood, *settings)


def make_joint(
    likelihood: bnn.Likelihood, prior_scale: float, num_data: int
) -> bnn.LogJoint:
    """Return the joint density that all methods approximate."""
    return bnn.LogJoint(likelihood, bnn.FanInNormal(prior_scale), num_data=num_data)


def make_chains(
    joint: bnn.LogJoint, starts: bnn.AbstractPosterior, *, num_transitions: int
) -> bnn.MCLMC:
    """Return chains from the networks of an ensemble.

    A third of the transitions is warm-up; 50 draws of each chain are kept.
    """
    num_warmup = num_transitions // 3
    num_draws = 50
    assert starts.num_atoms is not None
    return bnn.MCLMC(
        joint,
        num_warmup=num_warmup,
        num_draws=num_draws,
        thin=max(1, (num_transitions - num_warmup) // num_draws),
        num_chains=starts.num_atoms,
        random=True,
        initial=starts,
        energy_variance=0.01,
        initial_energy_variance=0.1,
        diagonal=False,
    )


def _point(joint: bnn.LogJoint, num_steps: int, rate: float) -> bnn.MAP:
    schedule = optax.cosine_decay_schedule(rate, num_steps, 0.01)
    return bnn.MAP(
        joint, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    )


@functools.lru_cache(maxsize=8)
def _named(
    method, likelihood, prior_scale, num_data, num_steps, num_members, learning_rate
):
    joint = make_joint(likelihood, prior_scale, num_data)
    point = _point(joint, num_steps, learning_rate)
    if method == "map":
        return point
    if method in ("ensemble", "chains"):
        return bnn.DeepEnsemble(point, num_members=num_members)
    if method == "laplace":
        return bnn.Laplace(point, structure="kronecker")
    if method == "mean_field_vi":
        return bnn.MeanFieldVI(joint, point.optimizer, estimator="local")
    raise ValueError(
        f"method={method!r}: give one of {', '.join(NAMES)}, a function "
        "(log_joint, num_steps) -> inference method, or 'diffusion' for regression"
    )
