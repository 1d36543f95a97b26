"""Optimisers that are built when the total number of steps of a run is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import jax
import optax
from jaxtyping import PyTree

from .optimizer_update import check_optimizer

Tree = TypeVar("Tree", bound=Any)

_LATER = 1_000_000
"""Number of steps for the structure of a state before the true one is known."""


def from_total_steps(
    build: Callable[[int], optax.GradientTransformation],
) -> optax.GradientTransformationExtraArgs:
    """Return an optimiser that is built for the length of the run that it is used in.

    ```python
    optimizer = jaxprob.from_total_steps(
        lambda total_steps: optax.adam(optax.cosine_decay_schedule(1e-3, total_steps))
    )
    learner = jaxprob.GradientDescent(loss, optimizer)
    ```

    `jaxprob.fit` and a Trainer call `build` with the number of updates of the whole
    run: those of earlier fits or of a checkpoint are included, batches that are left
    out by `limit_train_batches` or `max_steps` are not, and of the batches that a
    Trainer accumulates each window counts once. Any learner takes it in place of
    an optimiser. In a loop that you write, `jaxprob.with_total_steps` builds it.

    It stands outermost: `optax.chain`, `optax.MultiSteps` and others are composed
    inside `build`. Under `optax.MultiSteps(optimizer, k)` the schedule inside counts
    `total_steps // k`.

    **Arguments:**

    - `build`: `build(total_steps) -> optax transformation`. The structure of its state
        is the same for any number.
    """
    if not callable(build):
        raise TypeError(
            f"build={build!r}: give a function of the number of steps, such as lambda "
            "total_steps: optax.adam(optax.cosine_decay_schedule(1e-3, total_steps))"
        )
    return optax.GradientTransformationExtraArgs(_Later(build), _reject)


@dataclass(frozen=True)
class _Later:
    """The `init` of an optimiser that is not built yet. It survives maps of trees."""

    build: Callable[[int], Any]

    def __call__(self, params: PyTree) -> PyTree:
        return self.built(_LATER).init(params)

    def built(self, total_steps: int) -> optax.GradientTransformation:
        optimizer = self.build(total_steps)
        check_optimizer(optimizer, f"build({total_steps}) of jaxprob.from_total_steps")
        return optimizer


def needs_total_steps(learner: Any) -> bool:
    """Return whether an optimiser of a learner waits for the number of steps."""
    leaves = jax.tree.leaves(learner, is_leaf=_is_waiting)
    return any(map(_is_waiting, leaves))


def build_optimizers(learner: Tree, total_steps: int) -> Tree:
    """Return the learner with its optimisers built for a number of steps."""

    def one(node):
        return node.init.built(total_steps) if _is_waiting(node) else node

    return jax.tree.map(one, learner, is_leaf=_is_waiting)


def _is_waiting(node):
    is_optimizer = isinstance(node, optax.GradientTransformation)
    return is_optimizer and isinstance(node.init, _Later)


def _reject(updates, state, params=None, **extra) -> NoReturn:
    raise ValueError(
        "jaxprob.from_total_steps waits for the total number of steps. jaxprob.fit and "
        "a Trainer give it where it stands outermost, from_total_steps(lambda "
        "total_steps: optax.chain(...)); in a loop that you write, take learner = "
        "jaxprob.with_total_steps(learner, total_steps)"
    )
