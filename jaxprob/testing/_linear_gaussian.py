"""Bayesian linear regression: the exact posterior of a network with one layer."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .. import tree
from .._types import Model, PRNGKey
from ..bnn import LogJoint, NormalLikelihood


class LinearGaussian(eqx.Module):
    r"""Linear regression with known noise and a Gaussian prior.

    $$y = X w + e, \quad e \sim \mathcal N(0, s^2 I), \quad w \sim \mathcal N(0,
      \tau^{-1} I)$$

    $$A = \tau I + X^\top X / s^2, \quad w \mid y \sim \mathcal N(m, A^{-1}), \quad
      m = A^{-1} X^\top y / s^2$$

    With a bias X has a last column of ones, so that w is the weights and then the bias,
    in the order in which `jaxprob.tree.ravel` lays out an `eqx.nn.Linear`.

    Reference: *Pattern recognition and machine learning*, Bishop, 2006, section 3.3.

    **Arguments:**

    - `x`: inputs, without the column of ones.
    - `y`: targets.
    - `noise`: $s$.
    - `prior_scale`: $\tau^{-1/2}$.
    - `bias`: whether the model has one.
    """

    x: Float[Array, "rows dim"]
    y: Float[Array, " rows"]
    noise: float = eqx.field(static=True, default=0.5)
    prior_scale: float = eqx.field(static=True, default=1.0)
    bias: bool = eqx.field(static=True, default=True)

    @classmethod
    def random(
        cls,
        *,
        key: PRNGKey,
        num_data: int = 60,
        dim: int = 4,
        noise: float = 0.5,
        prior_scale: float = 1.0,
        bias: bool = True,
    ) -> "LinearGaussian":
        """Draw a problem from the model, with correlated columns of x."""
        x_key, mix_key, w_key, noise_key = jax.random.split(key, 4)
        mix = jnp.eye(dim) + 0.4 * jax.random.normal(mix_key, (dim, dim))
        x = jax.random.normal(x_key, (num_data, dim)) @ mix
        problem = cls(x, jnp.zeros(num_data), noise, prior_scale, bias)
        _, y = problem._drawn(w_key, noise_key)
        return cls(x, y, noise, prior_scale, bias)

    def simulate(
        self, *, key: PRNGKey
    ) -> tuple[Float[Array, " params"], Float[Array, " rows"]]:
        """Draw weights from the prior and targets given them at the same inputs."""
        return self._drawn(*jax.random.split(key))

    def _drawn(self, w_key, noise_key):
        design = self.design(self.x)
        w = self.prior_scale * jax.random.normal(w_key, (design.shape[1],))
        noise = jax.random.normal(noise_key, (len(design),))
        return w, design @ w + self.noise * noise

    def design(self, x: Float[Array, "rows dim"]) -> Float[Array, "rows params"]:
        """Return x, with a column of ones if there is a bias."""
        if not self.bias:
            return x
        return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)

    @property
    def precision(self) -> Float[Array, "params params"]:
        """$A$."""
        design = self.design(self.x)
        prior = jnp.eye(design.shape[1], dtype=design.dtype) / self.prior_scale**2
        return prior + design.T @ design / self.noise**2

    @property
    def covariance(self) -> Float[Array, "params params"]:
        """$A^{-1}$, the exact posterior covariance."""
        return jnp.linalg.inv(self.precision)

    @property
    def mean(self) -> Float[Array, " params"]:
        """$m$, the exact posterior mean, which is also the mode."""
        right = self.design(self.x).T @ self.y / self.noise**2
        return jnp.linalg.solve(self.precision, right)

    @property
    def log_evidence(self) -> Float[Array, ""]:
        r"""$\log \mathcal N(y; 0, s^2 I + X X^\top / \tau)$."""
        design = self.design(self.x)
        noise = self.noise**2 * jnp.eye(len(self.y), dtype=design.dtype)
        covariance = noise + self.prior_scale**2 * design @ design.T
        return jnp.asarray(
            dist.MultivariateNormal(jnp.zeros_like(self.y), covariance).log_prob(self.y)
        )

    @property
    def mean_field_variance(self) -> Float[Array, " params"]:
        """$1 / A_{ii}$, the variances of the best factorised Gaussian."""
        return 1.0 / jnp.diag(self.precision)

    @property
    def mean_field_elbo(self) -> Float[Array, ""]:
        r"""Its ELBO, $\log Z - \frac12 (\sum_i \log A_{ii} - \log |A|)$."""
        diagonal = jnp.sum(jnp.log(jnp.diag(self.precision)))
        gap = 0.5 * (diagonal - jnp.linalg.slogdet(self.precision)[1])
        return self.log_evidence - gap

    def predictive(
        self, x: Float[Array, "rows dim"]
    ) -> tuple[Float[Array, " rows"], Float[Array, " rows"]]:
        """Mean and variance of y at new inputs, noise included."""
        design = self.design(x)
        spread = jnp.einsum("ni,ij,nj->n", design, self.covariance, design)
        return design @ self.mean, spread + self.noise**2

    def model(self, *, key: PRNGKey) -> eqx.nn.Linear:
        """Return the model as a network: one linear layer with a scalar output."""
        return eqx.nn.Linear(
            self.x.shape[1], "scalar", use_bias=self.bias, dtype=self.x.dtype, key=key
        )

    def vector(self, model: Model) -> Float[Array, " params"]:
        """Return the weights of such a network in the order of `mean`."""
        return tree.ravel(model)[0]

    def log_joint(self, *, temperature: float = 1.0) -> LogJoint:
        """Likelihood and prior of this problem."""
        return LogJoint(
            NormalLikelihood(self.noise),
            dist.Normal(0.0, self.prior_scale),
            num_data=len(self.y),
            temperature=temperature,
        )
