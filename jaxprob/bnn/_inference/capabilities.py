"""Capabilities of inference methods, by which families meet that import none other."""

import abc
import dataclasses
from typing import Any, ClassVar, TypeVar

import jax
from jaxtyping import PyTree

from ..._training.learner import AbstractCapability
from ..._types import Model, PRNGKey, State, Where
from .._posterior.posterior import AbstractPosterior
from .inference import AbstractInference
from .run_steps import run_steps

Method = TypeVar("Method", bound=AbstractInference)


class AbstractTrainedModels(AbstractCapability):
    """Methods whose posterior is a few trained models, such as MAP and ensembles."""

    lacking: ClassVar = "does not end in trained models"

    @abc.abstractmethod
    def models(self, state: State) -> tuple[Model, ...]:
        """Return the trained models, each of which is equally probable."""


class AbstractConditional(AbstractCapability):
    """Inference of some leaves of a trained model, given the values of all others.

    `Blocks` needs it of the method of a block.
    """

    lacking: ClassVar = "cannot infer some leaves given all others"

    @abc.abstractmethod
    def restricted(self, where: Where) -> AbstractInference:
        """Return the method over some leaves (see `jaxprob.tree`), all others fixed."""

    @abc.abstractmethod
    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> AbstractPosterior:
        """Return the posterior of the method's leaves.

        **Arguments:**

        - `model`: the trained model, in inference mode.
        - `data`: all rows of the training set, `(x, y)`.
        - `key`: of everything random.
        - `num_steps`: updates of a method that does not know their number.
        """


def replaced(method: Method, **settings: Any) -> Method:
    """Return a method with other values of some of its fields."""
    return dataclasses.replace(method, **settings)


def restricted_leaves(method: Method, where: Where) -> Method:
    """Return a method with fields `random` and `point` over the leaves in `where`."""
    return replaced(method, random=where, point=False)


def infer_by_steps(
    method: AbstractInference,
    model: Model,
    data: PyTree,
    *,
    key: PRNGKey,
    num_steps: int,
) -> AbstractPosterior:
    """Return the posterior after updates on all the data, from a trained model.

    **Arguments:** as in `AbstractConditional.infer`.
    """
    init_key, run_key, posterior_key = jax.random.split(key, 3)
    state = method.init(model, key=init_key)
    state = run_steps(method, state, data, key=run_key, num=num_steps)
    return method.posterior(state, [data], key=posterior_key)
