"""The contract of inference methods: learners that end in a posterior."""

import abc
import operator
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from ..._checks import check_tree_values
from ..._training.batch import num_rows
from ..._training.capabilities import AbstractDataCheck, AbstractLowPrecision
from ..._training.learner import AbstractLearner
from ..._training.low_precision import LowPrecisionApply
from ..._types import Model, PRNGKey, State, Where
from .._joint.check_data import RowCheck
from .._joint.log_joint import LogJoint
from .._joint.row import as_row
from .._posterior.posterior import AbstractPosterior
from .._weights.choice import choose, nothing_random, select
from .._weights.random_leaves import mean_leaves, random_leaves

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractInference(AbstractLearner, AbstractDataCheck, AbstractLowPrecision):
    """Base class of inference methods: learners that end in a posterior.

    **Fields:**

    - `log_joint`: likelihood, prior and N; a wrapper gives that of its method.
    """

    log_joint: AbstractVar[LogJoint]

    def __check_init__(self):
        joint = self.log_joint
        if not isinstance(joint, LogJoint):
            raise TypeError(
                f"log_joint is a {type(joint).__name__}: a method is given likelihood, "
                "prior and the number of rows, LogJoint(likelihood, prior, num_data=N)"
            )

    def check(self, model: Model, data: PyTree) -> None:
        """Check the rows of a data set, with the likelihood and the model at hand.

        **Raises:** as `check_data`.
        """
        row = as_row(data)
        check_tree_values("x", row.x)
        check_tree_values("y", row.y)
        self._row_check(model)(*row)

    def check_training(self, model: Model, data: PyTree) -> None:
        """`check`; and warns of a training set that has not `num_data` rows."""
        self.check(model, data)
        self.check_start(model, data)
        self.check_num_rows(num_rows(data))

    def check_batches(
        self, model: Model, *, training: bool
    ) -> Callable[[PyTree], None]:
        check = self._row_check(model)
        first = iter((training,))

        def check_batch(data: PyTree) -> None:
            check(*as_row(data))
            if next(first, False):
                self.check_start(model, data)

        return check_batch

    def check_start(self, model: Model, data: PyTree) -> None:
        """Check a model from which training starts; `data` are some of the rows."""

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        """Warn of a training set that has not `num_data` rows."""
        expected = self.log_joint.num_data
        if rows <= expected < rows + max(largest, 1):
            return
        warnings.warn(
            f"num_data={expected}, and the training set has {rows} rows: the "
            f"posterior will be as wide as if there were {expected} of them. Write "
            f"LogJoint(..., num_data={rows}); to widen or narrow it on purpose, "
            "give a temperature",
            stacklevel=4,
        )

    def in_low_precision(self, dtype: DTypeLike) -> AbstractLearner:
        """Return the method with its network in few bits.

        Likelihood, prior and divergence, sums over all data and weights, are in the
        precision of the parameters.
        """
        low = LowPrecisionApply(self.log_joint.apply, jnp.dtype(dtype).name)
        return eqx.tree_at(lambda method: method.log_joint.apply, self, low)

    def _row_check(self, model):
        joint = self.log_joint
        return RowCheck(joint.likelihood, model, joint.apply)

    def trained(self, model: Model) -> PyTree[bool]:
        """Return which leaves `update` moves: a flag for each array, or random leaf."""
        return select(mean_leaves(model), True)

    def unconstrained(self, model: Model) -> Model:
        """Return the model in the coordinates in which the method moves.

        By default it is the model itself; methods with random leaves put those whose
        prior has an edge into unconstrained coordinates (see `bnn.unconstrained`).
        """
        return model

    def needs_batches(self, model: Model) -> bool:
        """Return whether `posterior` makes a pass over the training data.

        In Lightning the posterior of such a method is stored in checkpoints.

        **Arguments:**

        - `model`: of a state of this method.
        """
        return False

    @abc.abstractmethod
    def posterior(
        self,
        state: State,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> AbstractPosterior:
        """Return the posterior that a state stands for.

        **Arguments:**

        - `state`: of this method.
        - `batches`: the training data again, for methods that need another pass.
        - `key`: for methods that need randomness here.
        """


def check_state(method: AbstractInference, state: Any, kind: type) -> None:
    """Reject what is not a state of a method, such as its model."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state is a {type(state).__name__}: {type(method).__name__} takes the "
            f"state that jaxprob.fit returns for it, a {kind.__name__}"
        )


def random_or_point(model: Model, random: Where | None, point: Where) -> PyTree[bool]:
    """Return flags of leaves that are random or points, of any model."""
    means = mean_leaves(model)
    return jax.tree.map(operator.or_, choose(means, random), select(means, point))


class Roles(eqx.Module):
    """Roles of leaves, random, point or frozen, as trees of bools.

    **Fields:**

    - `random`: have a prior, and a posterior.
    - `point`: are optimised; they have no prior.
    """

    random: PyTree[bool]
    point: PyTree[bool]

    @classmethod
    def of(cls, model: Model, random: Where | None, point: Where) -> "Roles":
        """Return the roles in a model; `random` wins where both mean a leaf.

        **Raises:** `ValueError` when no leaf is random, `TypeError` for a model that
        holds random leaves already.
        """
        path = next(iter(random_leaves(model)), None)
        if path is not None:
            raise TypeError(
                f"{path} is a random leaf already, as in BayesianLinear, and this "
                "method makes a posterior over arrays: give it bnn.mean_leaves(model), "
                "or take MeanFieldVI, LowRankVI or FullRankVI, which go on from there"
            )
        chosen = choose(model, random)
        if not any(jax.tree.leaves(chosen)):
            raise nothing_random("random", random, model)
        rest = jax.tree.map(lambda p, r: p and not r, select(model, point), chosen)
        return cls(random=chosen, point=rest)

    @property
    def trained(self) -> PyTree[bool]:
        """Random or point."""
        return jax.tree.map(lambda r, p: r or p, self.random, self.point)
