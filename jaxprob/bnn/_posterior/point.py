"""A single model as a posterior."""

from jaxtyping import Array, Integer

from ..._types import Model, PRNGKey
from .posterior import AbstractPosterior


class PointPosterior(AbstractPosterior):
    """Distribution with all mass on one model.

    **Arguments:**

    - `model`: that model.
    """

    model: Model

    def sample(self, *, key: PRNGKey) -> Model:
        return self.model

    def mean(self) -> Model:
        return self.model

    @property
    def num_atoms(self) -> int:
        return 1

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        return self.model
