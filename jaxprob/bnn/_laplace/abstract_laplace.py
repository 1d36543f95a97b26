"""Base class of Gaussians at the mode that another method has found."""

import abc
import dataclasses
from typing import TYPE_CHECKING, ClassVar, TypeVar

import equinox as eqx
import jax
from jaxtyping import PyTree

from ..._checks import path_name
from ..._training.gradient_descent import TrainState
from ..._training.wrapper import Withheld
from ..._types import Model, PRNGKey, Where
from .._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
    restricted_leaves,
)
from .._inference.map import MAP
from .._inference.wrapper import AbstractPostHoc
from .._joint.check_prior import check_prior
from .._joint.prior import Prior
from .._joint.unconstrain import unconstrained
from .._posterior.posterior import AbstractPosterior
from .._weights.choice import choose, nothing_random
from .._weights.running_statistics import Stateful

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar

Method = TypeVar("Method", bound="AbstractLaplace")


class AbstractLaplace(AbstractPostHoc, AbstractConditional):
    """Base class of Laplace approximations: training is that of the mode.

    **Fields:**

    - `method`: finds the mode.
    - `where`: the leaves it is over; `None` for the random leaves of `method`.
    """

    wraps: ClassVar = MAP
    forwards: ClassVar = {AbstractTrainedModels: Withheld("Laplace ends in a Gaussian")}
    method: AbstractVar[MAP]
    where: AbstractVar[Where | None]

    @abc.abstractmethod
    def check_prior_form(self, prior: Prior) -> None:
        """Raise `ValueError` for a prior whose precision the method cannot hold."""

    def init(self, model: Model, *, key: PRNGKey | None = None) -> TrainState:
        self.flags(self.unconstrained_leaves(model))
        return self.method.init(model, key=key)

    def restricted(self: Method, where: Where) -> Method:
        method = restricted_leaves(self.method, where)
        return dataclasses.replace(self, method=method, where=None)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> AbstractPosterior:
        """Return the posterior whose mode is the trained model: no step is made."""
        init_key, _, posterior_key = jax.random.split(key, 3)
        state = self.init(model, key=init_key)
        return self.posterior(state, [data], key=posterior_key)

    def needs_batches(self, model: Model) -> bool:
        return True

    def unconstrained_leaves(self, model: Model) -> Model:
        """Return the model with its leaves whose prior has an edge in coordinates."""
        return unconstrained(model, self.log_joint.prior, self._where)

    def flags(self, model: Model) -> PyTree[bool]:
        """Return the leaves that the Gaussian is over.

        **Raises:** `ValueError` where there is none, or none of this prior.
        """
        where = self._where
        flags = choose(model, where)
        if not any(jax.tree.leaves(flags)):
            raise nothing_random("where", where, model)
        check_prior(self.log_joint.prior, eqx.filter(model, flags))
        self.check_prior_form(self.log_joint.prior)
        return flags

    @property
    def _where(self):
        return self.method.random if self.where is None else self.where


def check_no_batch_statistics(model: Model) -> None:
    """Raise `ValueError` for a model whose batch normalisation is in training mode."""
    kinds = (eqx.nn.BatchNorm, Stateful)
    nodes = jax.tree_util.tree_leaves_with_path(
        model, is_leaf=lambda node: isinstance(node, kinds)
    )
    for path, node in nodes:
        if isinstance(node, kinds) and not node.inference:
            name = path_name(path) or "the model"
            raise ValueError(
                f"{name} ({type(node).__name__}) is in training mode: it normalises by "
                "the statistics of a batch, so an output depends on other rows and the "
                "likelihood has no curvature for each row. Train on in inference mode, "
                "where the running statistics are constants: fit the method once more "
                "from eqx.nn.inference_mode(method.model(state)). Or use GroupNorm."
            )
