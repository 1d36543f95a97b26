"""Methods round another method."""

from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import PyTree

from ..._types import Info, Model, PRNGKey, State
from .._joint.log_joint import LogJoint
from .inference import AbstractInference

if TYPE_CHECKING:  # see bnn/_inference.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractWrapper(AbstractInference):
    """A method with another one inside.

    **Fields:**

    - `method`: that one, of the class `wraps`.
    """

    method: AbstractVar[AbstractInference]
    wraps: ClassVar[type] = AbstractInference

    def __check_init__(self):
        if not isinstance(self.method, self.wraps):
            given: Any = self.method
            kind = "the class " if isinstance(given, type) else "a "
            name = given if isinstance(given, type) else type(given)
            raise TypeError(
                f"method is {kind}{name.__name__}: {type(self).__name__} "
                f"takes a method of class {self.wraps.__name__}, such as "
                "MAP(log_joint, optax.adam(1e-3))"
            )

    @property
    def log_joint(self) -> LogJoint:
        """That of the wrapped method."""
        return self.method.log_joint

    def check(self, model: Model, data: PyTree) -> None:
        self.method.check(model, data)

    def check_start(self, model: Model, data: PyTree) -> None:
        self.method.check_start(model, data)

    def check_num_rows(self, rows: int, *, largest: int = 0) -> None:
        self.method.check_num_rows(rows, largest=largest)

    def trained(self, model: Model) -> PyTree[bool]:
        return self.method.trained(model)


class AbstractPostHoc(AbstractWrapper):
    """Trains as the method inside does, in its state, and differs in the posterior."""

    def update(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, Info]:
        return self.method.update(state, batch, key=key)

    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree | None:
        return self.method.gradient(state, batch, key=key)

    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        return self.method.evaluate(state, batch, key=key)

    def model(self, state: State) -> Model:
        return self.method.model(state)
