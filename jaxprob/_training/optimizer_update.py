"""The update of any optax transformation, with the extra arguments that some need.

| argument | read by |
|---|---|
| `value`, the loss at the parameters | `reduce_on_plateau`, `polyak_sgd`, `momo` |
| `grad`, its gradient, and `value_fn`, the loss at others | line searches, `lbfgs` |
| `grad_fn`, the gradient at others | `contrib.sam(opaque_mode=True)` |
| `obj_fn`, the same as `value_fn` | `contrib.sophia` |
"""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .accumulate import AccumulateState


def optimizer_update(
    optimizer: optax.GradientTransformation,
    grads: PyTree,
    opt_state: PyTree,
    params: PyTree,
    *,
    value: Float[Array, ""],
    value_fn: Callable[[PyTree], Float[Array, ""]],
    **extra: Any,
) -> tuple[PyTree, PyTree]:
    """Call `optimizer.update` with the extra arguments that it takes.

    **Arguments:**

    - `grads`: the gradient, which may be that of a scaled loss.
    - `value`: the loss at `params`.
    - `value_fn`: the loss as a function of the parameters, on the same batch and with
        the same key.
    - `extra`: further arguments, such as the scale of the gradient.
    """
    function = _reject_other_parameters if _accumulates(opt_state) else value_fn

    # A line search takes no argument beside its own that this function does not take.
    def loss(params, *, obj_fn=None, grad_fn=None):
        return function(params)

    extra = {
        "value": value,
        "grad": grads,
        "value_fn": loss,
        "obj_fn": loss,
        "grad_fn": lambda params, *_: jax.grad(function)(params),
        **extra,
    }
    return accepting(optimizer.update)(grads, opt_state, params, **extra)


def check_optimizer(optimizer: Any, name: str = "optimizer") -> None:
    """Reject what is no optax transformation.

    **Raises:** `TypeError` that names the argument.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise TypeError(
            f"{name}={optimizer!r}: give an optax transformation, such as "
            "optax.adam(1e-3)"
        )


def accepting(update: Callable[..., Any]) -> Callable[..., Any]:
    """Return an `update` that leaves out the extra arguments that it does not take.

    A chain takes all and hands them to each of its parts, some of which take none
    although optax's types say so (`contrib.sam`): these are known by their error.
    """

    def accepted(grads, state, params=None, **extra):
        parameters = inspect.signature(update).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            names = {p.name for p in parameters}
            extra = {name: value for name, value in extra.items() if name in names}
        while True:
            try:
                return update(grads, state, params, **extra)
            except TypeError as error:
                name = re.search(r"unexpected keyword argument '(\w+)'", str(error))
                if name is None or name[1] not in extra:
                    raise
                extra.pop(name[1])
            except AttributeError as error:
                if getattr(error, "name", None) != "fast":
                    raise
                raise TypeError(
                    "optax.lookahead moves two copies of the parameters at once, which "
                    "no learner holds: average the weights by ema=jaxprob.EMA(0.999), "
                    "or use optax.contrib.schedule_free_adamw"
                ) from None

    return accepted


def accepts_extra(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """Return the transformation with an `update` that takes any extra arguments."""
    return optax.GradientTransformationExtraArgs(
        optimizer.init, accepting(optimizer.update)
    )


def evaluation_params(opt_state: PyTree, params: PyTree) -> PyTree:
    """Return the parameters to evaluate: a schedule-free optimiser's average.

    With any other optimiser they are the parameters that it moves.
    """
    for node in jax.tree.leaves(opt_state, is_leaf=_is_schedule_free):
        same = jax.tree.structure(getattr(node, "z", None))
        if _is_schedule_free(node) and same == jax.tree.structure(params):
            average = optax.contrib.schedule_free_eval_params(node, params)
            return jax.tree.map(lambda a, p: jnp.astype(a, p.dtype), average, params)
    return params


def _is_schedule_free(node):
    return isinstance(node, optax.contrib.ScheduleFreeState)


def _accumulates(opt_state):
    def is_sum(node):
        return isinstance(node, optax.MultiStepsState | AccumulateState)

    return any(map(is_sum, jax.tree.leaves(opt_state, is_leaf=is_sum)))


def _reject_other_parameters(params):
    raise ValueError(
        "the optimiser evaluates the loss at other parameters (a line search, "
        "optax.lbfgs, opaque SAM, Sophia), and gradients are accumulated over several "
        "batches, of which only the last is at hand: give larger batches in place of "
        "accumulate_grad_batches or optax.MultiSteps"
    )
