"""A Gaussian over weights with its precision factorised, for many draws."""

import equinox as eqx
from jaxtyping import PyTree

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from .._joint.likelihood import Likelihood
from .._posterior.posterior import AbstractPosterior
from .._weights.unconstrained import constrained, tangent
from .curvature import AbstractCurvature


class FactorisedLaplace(AbstractPosterior):
    """The posterior of Laplace's method with its precision factorised.

    **Arguments:**

    - `params`, `rest`, `curvature`, `likelihood`, `temperature`: as in
        `LaplacePosterior`.
    - `root`: of the precision, as `AbstractCurvature.root` returns it.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    root: PyTree
    likelihood: Likelihood
    temperature: float = eqx.field(static=True)

    @property
    def linearized(self) -> bool:
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    def sample(self, *, key: PRNGKey) -> Model:
        return constrained(eqx.combine(self._coordinates(key), self.rest))

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        moved = tangent(self.params, self._coordinates(key))
        return eqx.combine(moved, constrained(self.rest)), self.mean()

    def _coordinates(self, key):
        vector, unravel = ravel(self.params)
        check_key(key)
        draw = self.curvature.draw(self.root, key=key)
        return unravel(vector + self.temperature**0.5 * draw)

    def mean(self) -> Model:
        return constrained(eqx.combine(self.params, self.rest))
