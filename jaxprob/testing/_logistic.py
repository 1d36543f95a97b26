"""Bayesian logistic regression with its posterior by quadrature."""

import functools
import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float, Int

from .. import tree
from .._types import Model, PRNGKey
from ..bnn import BernoulliLikelihood, LogJoint


class LogisticRegression(eqx.Module):
    r"""Two classes, a linear model and a Gaussian prior.

    $$y_i \sim \mathrm{Bernoulli}(1 / (1 + e^{-x_i^\top w})), \quad w \sim \mathcal N(0,
      \tau^{-1} I)$$

    The posterior has no closed form, but in few dimensions quadrature gives its moments
    and evidence: the product rule of Gauss and Hermite, after a change of variables to
    the mode and the curvature there.

    Reference: *Applications of a method for the efficient computation of posterior
    distributions*, Naylor and Smith, 1982.

    **Arguments:**

    - `x`: inputs with at most five columns; the model has a bias beside them.
    - `y`: labels 0 and 1.
    - `prior_scale`: $\tau^{-1/2}$.
    - `nodes`: of the quadrature in each dimension.
    """

    x: Float[Array, "rows dim"]
    y: Int[Array, " rows"]
    prior_scale: float = eqx.field(static=True, default=1.0)
    nodes: int = eqx.field(static=True, default=16)

    @classmethod
    def random(
        cls,
        *,
        key: PRNGKey,
        num_data: int = 40,
        dim: int = 3,
        prior_scale: float = 1.0,
        nodes: int = 16,
    ) -> "LogisticRegression":
        """Draw a problem from the model, with correlated columns of x."""
        x_key, mix_key, w_key, y_key = jax.random.split(key, 4)
        mix = jnp.eye(dim) + 0.4 * jax.random.normal(mix_key, (dim, dim))
        x = jax.random.normal(x_key, (num_data, dim)) @ mix
        w = prior_scale * jax.random.normal(w_key, (dim + 1,))
        logits = x @ w[:-1] + w[-1]
        y = jax.random.bernoulli(y_key, jax.nn.sigmoid(logits)).astype(jnp.int32)
        return cls(x, y, prior_scale, nodes)

    @property
    def mean(self) -> Float[np.ndarray, " params"]:
        """Posterior mean of the weights, then the bias."""
        return self._moments()[0]

    @property
    def covariance(self) -> Float[np.ndarray, "params params"]:
        """Posterior covariance."""
        return self._moments()[1]

    @property
    def log_evidence(self) -> float:
        r"""$\log p(y)$, in nats."""
        return self._moments()[2]

    def model(self, *, key: PRNGKey) -> eqx.nn.Linear:
        """Return the model as a network: one linear layer with one logit."""
        return eqx.nn.Linear(self.x.shape[1], "scalar", dtype=self.x.dtype, key=key)

    def vector(self, model: Model) -> Float[Array, " params"]:
        """Return the weights of such a network in the order of `mean`."""
        return tree.ravel(model)[0]

    def log_joint(self, *, temperature: float = 1.0) -> LogJoint:
        """Likelihood and prior of this problem."""
        return LogJoint(
            BernoulliLikelihood(),
            dist.Normal(0.0, self.prior_scale),
            num_data=len(self.y),
            temperature=temperature,
        )

    def _moments(self):
        x, y = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        return _quadrature(
            x.tobytes(), x.shape, y.tobytes(), self.prior_scale, self.nodes
        )


@functools.lru_cache(maxsize=8)
def _quadrature(x, shape, y, prior_scale, nodes):
    """Mean, covariance and log evidence, in NumPy's double precision."""
    x = np.frombuffer(x).reshape(shape)
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    signs = 2 * np.frombuffer(y) - 1
    dim = design.shape[1]
    tau = 1 / prior_scale**2

    def log_density(w):
        """Return the log density of each row of w, up to a constant."""
        logits = signs * (w @ design.T)
        return -np.logaddexp(0.0, -logits).sum(-1) - 0.5 * tau * (w**2).sum(-1)

    mode = np.zeros(dim)
    for _ in range(50):  # Newton's method on a concave function
        p = 1 / (1 + np.exp(-design @ mode))
        gradient = design.T @ ((signs + 1) / 2 - p) - tau * mode
        hessian = (design.T * (p * (1 - p))) @ design + tau * np.eye(dim)
        mode = mode + np.linalg.solve(hessian, gradient)
    root = np.linalg.cholesky(np.linalg.inv(hessian))
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    top = log_density(mode[None])[0]
    zeroth, first, second = 0.0, np.zeros(dim), np.zeros((dim, dim))
    # One block of points for each choice of the first coordinate.
    rest = np.array(list(itertools.product(points, repeat=dim - 1)))
    rest_weights = np.array(list(itertools.product(weights, repeat=dim - 1))).prod(1)
    for point, weight in zip(points, weights, strict=True):
        z = np.concatenate([np.full((len(rest), 1), point), rest], axis=1)
        w = mode + z @ root.T
        log_ratio = log_density(w) - top + 0.5 * (z**2).sum(1)
        mass = weight * rest_weights * np.exp(log_ratio)
        zeroth += mass.sum()
        first += mass @ w
        second += (w.T * mass) @ w
    mean = first / zeroth
    normaliser = np.log(zeroth) + top + np.linalg.slogdet(root)[1]
    prior = -0.5 * dim * np.log(2 * np.pi * prior_scale**2)
    return mean, second / zeroth - np.outer(mean, mean), float(normaliser + prior)
