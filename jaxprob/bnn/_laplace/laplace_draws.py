"""Draws of Laplace's Gaussian that were solved for, instead of its precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PyTree

from ..._random.keys import check_key
from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from .._joint.likelihood import Likelihood
from .._posterior.posterior import AbstractPosterior
from .._weights.unconstrained import constrained, tangent


class LaplaceDraws(AbstractPosterior):
    r"""The models $\hat w \pm z_s$ with $z_s \sim \mathcal N(0, T \Lambda^{-1})$.

    Each draw is there with both signs, so that the mean of linearised outputs is that
    of the mode, for any number of draws, and their variance the mean of
    $(J z_s)^2$. Of S draws a variance has a relative standard error of $\sqrt{2 / S}$.
    `predict` uses each model once. The prior is fixed: another one needs new solutions.

    **Arguments:**

    - `params`: $\hat w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `deviations`: $z_s$.
    - `likelihood`: that of the data.
    - `log_evidences`: an estimate of the log evidence from each draw, in nats; NaN
        where the temperature of the joint is not 1.
    - `truncation`: their mean error by the number of steps, at most.
    - `residuals`: of the linear system, relative, for each draw.
    - `num_passes`: over the data that the draws took.
    """

    params: PyTree
    rest: PyTree
    deviations: Float[Array, "samples dim"]
    likelihood: Likelihood
    log_evidences: Float[Array, " samples"]
    truncation: Float[Array, ""]
    residuals: Float[Array, " samples"]
    num_passes: int = eqx.field(static=True)

    @property
    def linearized(self) -> bool:
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    @property
    def num_atoms(self) -> int:
        return 2 * len(self.deviations)

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        r"""Return $\hat w + z_s$ for the index $2s$, and its mirror for $2s + 1$."""
        return constrained(eqx.combine(self._coordinates(index), self.rest))

    def atom_linearisation_point(
        self, index: int | Integer[Array, ""]
    ) -> tuple[Model, Model]:
        moved = tangent(self.params, self._coordinates(index))
        return eqx.combine(moved, constrained(self.rest)), self.mean()

    def sample(self, *, key: PRNGKey) -> Model:
        """Draw one of the models; for functions take `sample_function`."""
        return self.atom(self._index(key))

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw, moved along the tangent at the mode, and the mode."""
        return self.atom_linearisation_point(self._index(key))

    def mean(self) -> Model:
        """Return the mode, around which the draws are symmetric."""
        return constrained(eqx.combine(self.params, self.rest))

    def log_evidence(self) -> Float[Array, ""]:
        r"""Return an estimate of Laplace's $\log p(\mathcal D)$, in nats.

        The log-determinant is that of stochastic Lanczos quadrature:
        $\log |\Lambda| = \log |M| + \mathbb E_b[b^\top \Lambda^{-1} \log(M^{-1}
        \Lambda) \, b]$ over the right-hand sides $b \sim \mathcal N(0, \Lambda)$ of the
        draws, from the coefficients of the conjugate gradients that solved for them.

        Reference: *Fast estimation of tr(f(A)) via stochastic Lanczos quadrature*,
        Ubaru, Chen and Saad, 2017, SIAM Journal on Matrix Analysis 38.
        """
        return jnp.mean(self.log_evidences)

    def log_evidence_error(self) -> Float[Array, ""]:
        """Return the standard error of `log_evidence`, by the spread over the draws,
        and the error of the quadrature added to it.
        """
        spread = jnp.std(self.log_evidences, ddof=1)
        return spread / len(self.log_evidences) ** 0.5 + self.truncation

    def _index(self, key):
        check_key(key)
        return jax.random.randint(key, (), 0, self.num_atoms)

    def _coordinates(self, index):
        vector, unravel = ravel(self.params)
        step = self.deviations[index // 2]
        # The index may be unsigned, which has no -1.
        step = jnp.where(index % 2 == 0, step, -step)
        return unravel(vector + step)
