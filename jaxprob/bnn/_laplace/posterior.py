"""The Gaussian at the mode, and quantities of it that need no samples."""

import warnings
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._types import Model, PRNGKey
from ...tree._ravel import ravel
from .._joint.gaussian_prior import GaussianPrior
from .._joint.likelihood import Likelihood
from .._joint.output_hessian import Kind
from .._joint.output_link import output_link
from .._joint.prior import Prior, log_prior
from .._posterior.posterior import AbstractPosterior
from .._weights.apply import call_model
from .._weights.scale import is_traced
from .._weights.unconstrained import constrained, coordinates_of, log_volume
from .class_probs import class_probs
from .curvature import AbstractCurvature
from .curvature_covariance import CurvatureCovariance
from .factorised import FactorisedLaplace
from .output_gaussian import (
    LinearisedNetwork,
    joint_output_distribution,
    output_distribution,
)
from .prior_precision import posterior_precision, prior_precision


class LaplacePosterior(AbstractPosterior):
    r"""$q(w) = \mathcal N(\hat w, T (G + \mathrm{diag}(\tau))^{-1})$.

    The prior enters when it is used, so another prior costs no pass over the data:
    `eqx.tree_at(lambda q: q.prior, posterior, IsotropicNormal(0.3))`.

    **Arguments:**

    - `params`: $\hat w$, `None` at leaves that are not random.
    - `rest`: all other leaves.
    - `curvature`: $G$.
    - `prior`: its precision is $\tau$.
    - `likelihood`: that of the data.
    - `log_likelihood`: of all data at $\hat w$.
    - `squares`: the sum of squared residuals there, of all data; `None` for likelihoods
        that are not a `NormalLikelihood` of one scale.
    - `num_targets`: how many numbers all targets hold, those of a row as often as its
        weight says.
    - `temperature`: T.
    - `kind`: of the curvature, `"ggn"`, `"hessian"` or `"fisher"`.
    """

    params: PyTree
    rest: PyTree
    curvature: AbstractCurvature
    prior: Prior
    likelihood: Likelihood
    log_likelihood: Float[Array, ""]
    squares: Float[Array, ""] | None
    num_targets: Float[Array, ""]
    temperature: float = eqx.field(static=True)
    kind: Kind = eqx.field(static=True, default="ggn")

    @property
    def linearized(self) -> bool:
        """`True`: the Gaussian is exact for the network linearised at the mode."""
        return True

    @property
    def output_likelihood(self) -> Likelihood:
        return self.likelihood

    def sample(self, *, key: PRNGKey) -> Model:
        """Draw a model from the Gaussian over weights.

        Its predictions as a network spread more than those of the posterior, often many
        times more where the curvature is small, because the Gaussian is that of the
        linearised network. For functions take `sample_function`, which `predict` uses.
        """
        return self.factorised().sample(key=key)

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """Return a draw and the mode, around which the network is linearised.

        The draw has moved along the tangent at the mode where the prior has an edge,
        so that the network is linear in the unconstrained coordinates.
        """
        return self.factorised().linearisation_point(key=key)

    def factorised(self) -> "FactorisedLaplace":
        curvature, tau = self._precision()
        return FactorisedLaplace(
            self.params,
            self.rest,
            curvature,
            _root(curvature, tau),
            self.likelihood,
            self.temperature,
        )

    def mean(self) -> Model:
        return constrained(eqx.combine(self.params, self.rest))

    def log_prob(self, model: Model) -> Float[Array, ""]:
        values = coordinates_of(self.params, model)
        delta = ravel(values)[0] - ravel(self.params)[0]
        curvature, tau = self._precision()
        normaliser = curvature.log_det(tau) - delta.size * jnp.log(
            2 * jnp.pi * self.temperature
        )
        quadratic = curvature.quadratic(tau, delta) / self.temperature
        return 0.5 * (normaliser - quadratic) - log_volume(values)

    def log_evidence(self) -> Float[Array, ""]:
        r"""Return Laplace's approximation of $\log p(\mathcal D)$, in nats.

        $$\log p(\mathcal D \mid \hat w) + \log p(\hat w) + \tfrac P 2 \log 2 \pi -
          \tfrac 1 2 \log |G + \mathrm{diag}(\tau)|$$

        Differentiable in the prior; in the likelihood and in the weights too if the
        pass over the data is inside the derivative. It is that of $T = 1$.
        """
        parts = posterior_precision(self.curvature, self.prior, self.params)
        return _log_evidence(self, *parts)

    def output_distribution(
        self, x: PyTree, *, apply: Any = call_model
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out out"]]:
        r"""Return the Gaussian over the outputs of the linearised network.

        $$f(x) \sim \mathcal N(f_{\hat w}(x), J \Sigma J^\top)$$

        **Arguments:**

        - `x`: rows.
        - `apply`: as in `LogJoint`.

        **Returns:** mean and covariance of each row's outputs, flattened. With
        `NormalLikelihood` the predictive variance is the diagonal plus the noise's.

        Warns where outputs with a variance are probabilities, rates or scales, as
        after a softmax inside the model: there a Gaussian is only a first-order
        approximation, and `predict` linearises logits or logarithms instead.
        """
        x = jax.tree.map(jnp.asarray, x)
        network = self._network(apply)
        mean, covariance = output_distribution(
            network, *self._precision(), self.temperature, x
        )
        if not is_traced(covariance):
            link = output_link(self.likelihood, network.output_shapes(x))
            columns = [] if link is None else link.columns
            variances = np.asarray(jnp.diagonal(covariance, axis1=1, axis2=2))
            if np.any(variances[:, columns] > 0):
                warnings.warn(
                    "the likelihood takes these outputs as probabilities, rates or "
                    "scales, and a Gaussian over them has mass outside their range: it "
                    "is a first-order approximation. Write bnn.predict, which "
                    "linearises their logits or logarithms; or move the model's last "
                    "function, such as the softmax, into the likelihood.",
                    stacklevel=2,
                )
        return mean, covariance

    def joint_output_distribution(
        self, x: PyTree, *, apply: Any = call_model
    ) -> tuple[Float[Array, "rows out"], Float[Array, "rows out rows out"]]:
        r"""Return the Gaussian over the outputs of all rows together.

        $$\mathrm{Cov}[f_i(x), f_j(x')] = J_i(x) \Sigma J_j(x')^\top$$

        It is a Gaussian process at these inputs; memory grows with rows x outputs x
        weights. For single rows take `output_distribution`, for draws
        `sample_function`.

        **Arguments:**

        - `x`: rows.
        - `apply`: as in `LogJoint`.

        **Returns:** the mean, outputs flattened, and the covariance of each output of
        each row with each other.
        """
        x = jax.tree.map(jnp.asarray, x)
        return joint_output_distribution(
            self._network(apply), *self._precision(), self.temperature, x
        )

    def class_probs(
        self,
        x: PyTree,
        *,
        link: Literal["probit", "bridge"] = "probit",
        apply: Any = call_model,
    ) -> Float[Array, "rows *classes"]:
        """Return class probabilities of the linearised network, without samples.

        `predict` draws samples instead; its error vanishes as their number grows.

        **Arguments:**

        - `x`: rows.
        - `link`: how a Gaussian over logits becomes probabilities: `bnn.probit`, or for
            several classes the mean of `bnn.softmax_bridge`.
        - `apply`: as in `LogJoint`.

        **Returns:** the probabilities of all classes for each row; for a Bernoulli
        likelihood that of class 1.
        """
        mean, covariance = self.output_distribution(x, apply=apply)
        output = self._network(apply).output_shapes(jax.tree.map(jnp.asarray, x))
        return class_probs(self.likelihood, output, mean, covariance, link)

    def _network(self, apply):
        return LinearisedNetwork(self.params, self.rest, apply)

    def as_prior(self, *, temperature: float | None = None) -> GaussianPrior:
        """Return this Gaussian as the prior of further data, in its structure.

        **Arguments:**

        - `temperature`: as in `AbstractPosterior`; that of this posterior by default.
        """
        curvature, tau = self._precision()
        factor = self.temperature
        factor = factor / (factor if temperature is None else temperature)
        covariance = CurvatureCovariance(curvature, tau, jnp.asarray(factor, tau.dtype))
        return GaussianPrior(self.params, covariance)

    def _precision(self):
        r"""The precision of the Gaussian at T = 1, as G and $\tau$."""
        return posterior_precision(
            self.curvature, self.prior, self.params, temperature=self.temperature
        )

    def tau(self) -> Float[Array, " dim"]:
        r"""Return $\tau$, minus the second derivatives of the log prior at the mode.

        Of a correlated `GaussianPrior` it is the diagonal part of its precision.
        """
        return prior_precision(self.prior, self.params, temperature=self.temperature)


@eqx.filter_jit
def _root(curvature, tau):
    return curvature.root(tau)


@eqx.filter_jit
def _log_evidence(posterior, curvature, tau):
    prior = log_prior(posterior.prior, posterior.params)
    volume = 0.5 * tau.size * jnp.log(2 * jnp.pi)
    log_det = curvature.log_det(tau)
    return posterior.log_likelihood + prior + volume - 0.5 * log_det
