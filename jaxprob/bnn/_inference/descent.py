"""Methods that are plain gradient descent on a loss."""

import abc
from typing import TYPE_CHECKING

import optax
from jaxtyping import PyTree

from ..._training.capabilities import AbstractGradient, AbstractOptimized
from ..._training.ema import EMA
from ..._training.gradient_descent import GradientDescent, TrainState
from ..._training.optimizer_update import check_optimizer
from ..._types import Info, Model, PRNGKey, Where
from .._joint.unconstrain import unconstrained
from .._posterior.posterior import AbstractPosterior
from .capabilities import AbstractConditional, infer_by_steps, restricted_leaves
from .inference import AbstractInference, check_state, random_or_point

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractDescent(
    AbstractInference, AbstractGradient, AbstractOptimized, AbstractConditional
):
    """Base class of methods that minimise a loss, in a `TrainState`.

    **Fields:**

    - `random`, `point`: the leaves that move; see `MAP`.
    - `optimizer`: any optax transformation.
    - `ema`: averages the trained leaves; `model` and `posterior` then use the average.
    """

    random: AbstractVar[Where | None]
    point: AbstractVar[Where]
    optimizer: AbstractVar[optax.GradientTransformation]
    ema: AbstractVar[EMA | None]

    def __check_init__(self):
        check_optimizer(self.optimizer)

    @abc.abstractmethod
    def _descent(self, model: PyTree) -> GradientDescent:
        """Return how a model is trained: the loss, and which leaves move."""

    def trained(self, model: Model) -> PyTree[bool]:
        return random_or_point(model, self.random, self.point)

    def unconstrained(self, model: Model) -> Model:
        return unconstrained(model, self.log_joint.prior, self.random)

    def restricted(self, where: Where) -> AbstractInference:
        return restricted_leaves(self, where)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> AbstractPosterior:
        return infer_by_steps(self, model, data, key=key, num_steps=num_steps)

    def update(
        self, state: TrainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[TrainState, Info]:
        return self._descent(state.model).update(state, batch, key=key)

    def gradient(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        return self._descent(state.model).gradient(state, batch, key=key)

    def evaluate(self, state: TrainState, batch: PyTree, *, key: PRNGKey) -> Info:
        return self._descent(state.model).evaluate(state, batch, key=key)

    def model(self, state: TrainState) -> Model:
        """Return the model whose random leaves are their posterior means."""
        return self.posterior(state).mean()

    def _trained(self, state: TrainState) -> PyTree:
        """The model of a state, or its average if there is an EMA."""
        check_state(self, state, TrainState)
        return self._descent(state.model).model(state)
