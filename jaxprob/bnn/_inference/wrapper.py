"""Methods with another method inside."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import DTypeLike, PyTree

from ..._training.capabilities import AbstractAcceptReject, AbstractOptimized
from ..._training.gradient_descent import GradientDescent
from ..._training.learner import AbstractLearner
from ..._training.wrapper import (
    SAME_STATE,
    AbstractLearnerWrapper,
    ForwardedOptimized,
    same_capability,
)
from ..._types import Info, Model, PRNGKey, State
from .._joint.log_joint import LogJoint
from .inference import AbstractInference

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractWrapper(AbstractLearnerWrapper, AbstractInference):
    """Base class of a method with another one inside.

    **Fields:**

    - `method`: the method inside, of the class `wraps`.
    """

    method: AbstractVar[AbstractInference]
    wraps: ClassVar[type] = AbstractInference
    forwards: ClassVar = {
        AbstractOptimized: ForwardedOptimized,
        AbstractAcceptReject: same_capability,
    }

    def __check_init__(self):
        if not isinstance(self.method, self.wraps):
            given: Any = self.method
            kind = "the class " if isinstance(given, type) else "a "
            name = given if isinstance(given, type) else type(given)
            note = ""
            if isinstance(given, GradientDescent):
                note = (
                    ". A loss becomes a log_joint by a likelihood, a prior and N; that "
                    "of a denoiser by LogJoint(..., apply=rows.apply) of "
                    "diffusion.DenoisingRows"
                )
            raise TypeError(
                f"method is {kind}{name.__name__}: {type(self).__name__} "
                f"takes a method of class {self.wraps.__name__}, such as "
                f"MAP(log_joint, optax.adam(1e-3)){note}"
            )

    @property
    def inner(self) -> AbstractInference:
        return self.method

    @property
    def log_joint(self) -> LogJoint:
        """The log joint of the method inside."""
        return self.method.log_joint

    def check(self, model: Model, data: PyTree) -> None:
        self.method.check(model, data)

    def check_training(self, model: Model, data: PyTree) -> None:
        self.method.check_training(model, data)
        self.check_start(model, data)

    def check_batches(
        self, model: Model, *, training: bool
    ) -> Callable[[PyTree], None]:
        check = self.method.check_batches(model, training=training)
        first = iter((training,))

        def check_batch(data: PyTree) -> None:
            check(data)
            if next(first, False):
                self.check_start(model, data)

        return check_batch

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        self.method.check_num_rows(rows, largest=largest)

    def in_low_precision(self, dtype: DTypeLike) -> AbstractLearner:
        return self.with_inner(self.method.in_low_precision(dtype))

    def trained(self, model: Model) -> PyTree[bool]:
        return self.method.trained(model)

    def unconstrained(self, model: Model) -> Model:
        return self.method.unconstrained(model)

    def needs_batches(self, model: Model) -> bool:
        return self.method.needs_batches(model)


class AbstractPostHoc(AbstractWrapper):
    """Base class of a method that trains as the one inside, in its state.

    It differs in the posterior.
    """

    forwards: ClassVar = SAME_STATE

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        return self.method.update(state, batch, key=key)

    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.method.evaluate(state, batch, key=key)

    def model(self, state: State) -> Model:
        return self.method.model(state)
