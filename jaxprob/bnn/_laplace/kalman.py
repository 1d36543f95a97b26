"""A Gaussian posterior that is updated row by row: the extended Kalman filter."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, PyTree

from ..._types import Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._joint.check_prior import check_prior
from .._joint.gaussian_prior import GaussianPrior
from .._joint.likelihood import Likelihood
from .._joint.log_joint import LogJoint
from .._joint.prior import with_priors
from .._joint.unconstrain import unconstrained
from .._posterior.posterior import AbstractPosterior
from .._weights.apply import call_model
from .._weights.choice import choose, nothing_random
from .._weights.unconstrained import constrained, coordinates_of, log_volume
from .curvature import FullCurvature
from .curvature_covariance import CurvatureCovariance
from .factorised import FactorisedLaplace
from .kalman_rows import checked_rows
from .kalman_step import kalman_step
from .output_gaussian import (
    LinearisedNetwork,
    joint_output_distribution,
    output_distribution,
)


class KalmanPosterior(AbstractPosterior):
    r"""$q(w) = \mathcal N(\mu, \Lambda^{-1})$, updated by new rows without the old.

    $$\Lambda' = \Lambda + \sum_i J_i^\top H_i J_i, \qquad
      \mu' = \mu + \Lambda'^{-1} \sum_i J_i^\top \nabla_f \log p(y_i \mid f_\mu(x_i))$$

    J is the Jacobian of the output at $\mu$ and H the expected information of the
    likelihood in it. For a model that is linear in w with Gaussian noise, such as the
    last layer of a trained network, this is Bayes' rule: a stream in any order and in
    batches of any size gives the posterior of all rows. For other models it is the
    extended Kalman filter, in which the order of the rows matters.

    `predict` linearises the network at $\mu$. The precision is a dense matrix, so that
    w has up to about a thousand entries: choose a last layer by `where`.

    References: *Training multilayer perceptrons with the extended Kalman algorithm*,
    Singhal and Wu, 1988; *Online natural gradient as a Kalman filter*, Ollivier, 2018,
    https://arxiv.org/abs/1703.00209; *Low-rank extended Kalman filtering for online
    learning of neural networks from streaming data*, Chang, Durán-Martín, Shestopaloff,
    Jones and Murphy, 2023, https://arxiv.org/abs/2305.19535.

    ```python
    posterior = bnn.KalmanPosterior.from_prior(model, log_joint, where="layers.2")
    for i in range(0, len(x), 8):
        posterior = posterior.update(x[i : i + 8], y[i : i + 8])
    predictive = bnn.predict(posterior, likelihood, x_test, key=key)
    ```

    **Arguments:** of the constructor; `from_prior` and `from_posterior` compute them.

    - `params`: $\mu$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `precision`: $\Lambda$.
    - `likelihood`: that of the rows.
    - `apply`: as in `LogJoint`.
    """

    params: PyTree
    rest: PyTree
    precision: Float[Array, "dim dim"]
    likelihood: Likelihood
    apply: Callable[..., Any] = call_model

    @classmethod
    def from_prior(
        cls, model: Model, log_joint: LogJoint, where: Where | None = None
    ) -> "KalmanPosterior":
        """Return the prior, which is the posterior of no rows.

        **Arguments:**

        - `model`: its other leaves stay as they are. The random ones start at the mean
            of the prior; to start at their values give `bnn.GaussianPrior(model,
            covariance)` as the prior.
        - `log_joint`: likelihood and prior, at temperature 1. The number of rows has
            no effect.
        - `where`: the random leaves (see `jaxprob.tree`), by default as in `MAP`.

        **Raises:** `TypeError` for a prior that is no Gaussian, with the leaf;
        `ValueError` for another temperature, or when no leaf is chosen.
        """
        if log_joint.temperature != 1.0:
            raise ValueError(
                f"temperature={log_joint.temperature}: a KalmanPosterior is one of "
                "temperature 1"
            )
        model = unconstrained(eqx.nn.inference_mode(model), log_joint.prior, where)
        flags = choose(model, where)
        if not any(jax.tree.leaves(flags)):
            raise nothing_random("where", where, model)
        params, rest = eqx.partition(model, flags)
        check_prior(log_joint.prior, params)
        vector, unravel = ravel(params)
        mean, precision = _moments(log_joint.prior, params)
        return cls(
            unravel(mean.astype(vector.dtype)),
            rest,
            precision.astype(vector.dtype),
            log_joint.likelihood,
            log_joint.apply,
        )

    @classmethod
    def from_posterior(
        cls,
        posterior: AbstractPosterior,
        likelihood: Likelihood | None = None,
        *,
        apply: Callable[..., Any] = call_model,
    ) -> "KalmanPosterior":
        """Return any Gaussian posterior in the form that can be updated.

        **Arguments:**

        - `posterior`: one with `as_prior`.
        - `likelihood`: of the rows; that of a Laplace approximation by default.
        - `apply`: as in `LogJoint`.
        """
        likelihood = posterior.output_likelihood if likelihood is None else likelihood
        if likelihood is None:
            raise ValueError(
                f"likelihood=None: a {type(posterior).__name__} does not know that of "
                "the data. Write from_posterior(posterior, likelihood)"
            )
        prior = posterior.as_prior(temperature=1.0)
        joint = LogJoint(likelihood, prior, 1, apply=apply)
        return cls.from_prior(posterior.mean(), joint, where=prior.paths)

    def update(
        self,
        x: PyTree,
        y: PyTree,
        weight: PyTree = None,
        *,
        num_iterations: int = 1,
        linearisation_point: Model | None = None,
    ) -> "KalmanPosterior":
        """Return the posterior after further rows.

        Batches are padded to the next power of two with rows that do not count, so that
        at most a few programs are compiled.

        **Arguments:**

        - `x`, `y`: rows.
        - `weight`: how often each row counts.
        - `num_iterations`: how often the network is linearised: at the mean before, and
            then at the mean that this gives (iterated Kalman filter). One is exact for
            linear models; more help where a batch moves the mean far.
        - `linearisation_point`: a model at which the network is linearised first,
            instead of the mean, such as one that was trained on these rows.

        **Raises:** as `bnn.check_data`; `FloatingPointError` when the posterior is not
        finite.
        """
        if num_iterations < 1:
            raise ValueError(f"num_iterations={num_iterations}: at least one")
        rows = checked_rows(self, x, y, weight)
        point = self.params
        if linearisation_point is not None:
            point = coordinates_of(self.params, linearisation_point)
        mean, precision, finite = kalman_step(self, rows, point, num_iterations)
        if not bool(finite):
            raise FloatingPointError(
                "the posterior is not finite after these rows: look at their scale, "
                "give a prior with a larger precision, or set jax_enable_x64"
            )
        # The same objects but for these two, by which the checks of rows are found.
        return KalmanPosterior(mean, self.rest, precision, self.likelihood, self.apply)

    @property
    def linearized(self) -> bool:
        """`True`: the Gaussian is that of the network linearised at its mean."""
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    def sample(self, *, key: PRNGKey) -> Model:
        return self.factorised().sample(key=key)

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        return self.factorised().linearisation_point(key=key)

    def factorised(self) -> FactorisedLaplace:
        curvature, tau = self._curvature()
        root = curvature.root(tau)
        return FactorisedLaplace(
            self.params, self.rest, curvature, root, self.likelihood, 1.0
        )

    def mean(self) -> Model:
        return constrained(eqx.combine(self.params, self.rest))

    def log_prob(self, model: Model) -> Float[Array, ""]:
        values = coordinates_of(self.params, model)
        delta = ravel(values)[0] - ravel(self.params)[0]
        curvature, tau = self._curvature()
        constant = delta.size * jnp.log(2 * jnp.pi)
        normaliser = curvature.log_det(tau) - constant
        return 0.5 * (normaliser - curvature.quadratic(tau, delta)) - log_volume(values)

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        factor = jnp.asarray(1.0 / (temperature or 1.0), self.precision.dtype)
        covariance = CurvatureCovariance(*self._curvature(), factor)
        return GaussianPrior(self.params, covariance)

    def output_distribution(
        self, x: PyTree
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out out"]]:
        """Return the Gaussian over the outputs of each row, as `LaplacePosterior`."""
        network = LinearisedNetwork(self.params, self.rest, self.apply)
        x = jax.tree.map(jnp.asarray, x)
        return output_distribution(network, *self._curvature(), 1.0, x)

    def joint_output_distribution(
        self, x: PyTree
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out rows out"]]:
        """Return the Gaussian over the outputs of all rows, as `LaplacePosterior`."""
        network = LinearisedNetwork(self.params, self.rest, self.apply)
        x = jax.tree.map(jnp.asarray, x)
        return joint_output_distribution(network, *self._curvature(), 1.0, x)

    def _curvature(self):
        dim, dtype = len(self.precision), self.precision.dtype
        return FullCurvature(self.precision), jnp.zeros(dim, dtype)


def _moments(prior, params):
    """Mean vector and precision matrix of a Gaussian prior."""
    if isinstance(prior, GaussianPrior):
        return prior.mean_vector(), prior.covariance.precision()
    means, precisions = [], []
    for path, leaf, p in with_priors(prior, params):
        if not isinstance(p, dist.Normal):
            raise TypeError(
                f"the prior of {path} is {type(p).__name__}: a KalmanPosterior starts "
                "at a Gaussian, numpyro's Normal or bnn.GaussianPrior. Or fit Laplace "
                "to the first rows and write KalmanPosterior.from_posterior"
            )
        scale = jnp.asarray(p.scale, leaf.dtype)
        means.append(jnp.broadcast_to(jnp.asarray(p.loc, leaf.dtype), leaf.shape))
        precisions.append(jnp.broadcast_to(1.0 / scale**2, leaf.shape))
    return ravel(means)[0], jnp.diag(ravel(precisions)[0])
