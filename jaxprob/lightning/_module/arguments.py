"""Validation of the arguments of a `LearnerModule`."""

from typing import Any

import torch

from ..._engine.layout import Layout
from ..._training.learner import AbstractLearner


def check_arguments(learner: Any, model: Any, layout: Any = None) -> None:
    """Check the types of a module's arguments.

    **Raises:** `TypeError` that names the argument and what to give instead.
    """
    kind = type(learner).__name__
    if isinstance(model, AbstractLearner) and not isinstance(learner, AbstractLearner):
        raise TypeError(
            f"the learner comes first and the model second: a {kind} was given as the "
            f"learner and a {type(model).__name__} as the model"
        )
    if not isinstance(learner, AbstractLearner):
        raise TypeError(
            f"learner is a {kind}: give what trains, such as jaxprob.GradientDescent("
            "loss, optax.adam(1e-3)) or a method of jaxprob.bnn"
        )
    if isinstance(model, torch.nn.Module):
        raise TypeError(
            f"model is a {type(model).__module__}.{type(model).__name__}, of torch: "
            "give an Equinox module, or another pytree of JAX arrays"
        )
    if layout is not None and not isinstance(layout, Layout):
        raise TypeError(f"layout={layout!r}: give jaxprob.Layout(data=4), or nothing")
