"""Linear regression with unknown noise: conjugate, with a Student t predictive."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from .. import tree
from .._types import Model, PRNGKey
from ..bnn import LogJoint, PriorByPath


class UnknownNoise(eqx.Module):
    r"""Linear regression whose noise has the conjugate prior.

    $$y = X w + e, \quad e \sim \mathcal N(0, s^2 I), \quad w \mid s \sim \mathcal N(0,
      s^2 \tau^{-1} I), \quad s^{-2} \sim \mathrm{Gamma}(a, b)$$

    $$A = \tau I + X^\top X, \quad m = A^{-1} X^\top y, \quad a_n = a + N / 2, \quad
      b_n = b + \tfrac 1 2 (y^\top y - m^\top A m)$$

    Given the data $s^{-2} \sim \mathrm{Gamma}(a_n, b_n)$, w is a multivariate Student t
    round m, and so is y at new inputs, with $2 a_n$ degrees of freedom. As a network
    the weights are in units of the noise, so that its leaves are independent a priori.

    Reference: *Pattern recognition and machine learning*, Bishop, 2006, exercises 3.12
    and 3.13.

    **Arguments:**

    - `x`: inputs, without the column of ones.
    - `y`: targets.
    - `prior_scale`: $\tau^{-1/2}$.
    - `shape`, `rate`: $a$ and $b$.
    """

    x: Float[Array, "rows dim"]
    y: Float[Array, " rows"]
    prior_scale: float = eqx.field(static=True, default=1.0)
    shape: float = eqx.field(static=True, default=2.0)
    rate: float = eqx.field(static=True, default=0.5)

    @classmethod
    def random(
        cls,
        *,
        key: PRNGKey,
        num_data: int = 12,
        dim: int = 2,
        prior_scale: float = 1.0,
        shape: float = 2.0,
        rate: float = 0.5,
    ) -> "UnknownNoise":
        """Draw a problem from the model, with correlated columns of x."""
        x_key, mix_key, s_key, w_key, noise_key = jax.random.split(key, 5)
        mix = jnp.eye(dim) + 0.4 * jax.random.normal(mix_key, (dim, dim))
        x = jax.random.normal(x_key, (num_data, dim)) @ mix
        s = jnp.sqrt(rate / jax.random.gamma(s_key, shape))
        w = prior_scale * jax.random.normal(w_key, (dim + 1,))
        y = x @ w[:-1] + w[-1] + jax.random.normal(noise_key, (num_data,))
        return cls(x, s * y, prior_scale, shape, rate)

    def design(self, x: Float[Array, "rows dim"]) -> Float[Array, "rows params"]:
        """Return x with a column of ones."""
        return jnp.concatenate([x, jnp.ones((len(x), 1), x.dtype)], axis=1)

    @property
    def precision(self) -> Float[Array, "params params"]:
        """$A$, in units of the precision of the noise."""
        design = self.design(self.x)
        prior = jnp.eye(design.shape[1], dtype=design.dtype) / self.prior_scale**2
        return prior + design.T @ design

    @property
    def mean(self) -> Float[Array, " params"]:
        """$m$, the posterior mean of the weights and the bias."""
        return jnp.linalg.solve(self.precision, self.design(self.x).T @ self.y)

    @property
    def posterior_shape(self) -> float:
        """$a_n$."""
        return self.shape + 0.5 * len(self.y)

    @property
    def posterior_rate(self) -> Float[Array, ""]:
        """$b_n$."""
        # y'y - m'Am written by residuals, which does not cancel.
        residual = self.y - self.design(self.x) @ self.mean
        penalty = jnp.sum(self.mean**2) / self.prior_scale**2
        return self.rate + 0.5 * (jnp.sum(residual**2) + penalty)

    @property
    def noise(self) -> dist.Distribution:
        """The posterior of $s^{-2}$."""
        return dist.Gamma(self.posterior_shape, self.posterior_rate)

    @property
    def covariance(self) -> Float[Array, "params params"]:
        """Posterior covariance of the weights and the bias."""
        scale = self.posterior_rate / (self.posterior_shape - 1.0)
        return scale * jnp.linalg.inv(self.precision)

    @property
    def log_evidence(self) -> Float[Array, ""]:
        r"""$\log p(y)$, in nats."""
        _, log_det = jnp.linalg.slogdet(self.precision * self.prior_scale**2)
        shape = self.posterior_shape
        gammas = gammaln(shape) - gammaln(self.shape)
        rates = self.shape * jnp.log(self.rate) - shape * jnp.log(self.posterior_rate)
        return gammas + rates - 0.5 * (log_det + len(self.y) * jnp.log(2 * jnp.pi))

    def predictive(self, x: Float[Array, "rows dim"]) -> dist.Distribution:
        """Return the Student t of y at new inputs, one for each row."""
        design = self.design(x)
        inside = jnp.linalg.solve(self.precision, design.T)
        spread = jnp.sum(design * inside.T, axis=1)
        shape, rate = self.posterior_shape, self.posterior_rate
        scale = jnp.sqrt(rate / shape * (1.0 + spread))
        return dist.StudentT(2.0 * shape, design @ self.mean, scale)

    def model(self, *, key: PRNGKey) -> "ScaledLinear":
        """Return the model as a network; all of its leaves are random."""
        linear = eqx.nn.Linear(self.x.shape[1], "scalar", dtype=self.x.dtype, key=key)
        return ScaledLinear(linear, jnp.zeros((), self.x.dtype))

    def vector(self, model: Model) -> Float[Array, " params"]:
        """Return the weights of such a network as they act on the inputs."""
        return jnp.exp(-0.5 * model.log_precision) * tree.ravel(model.linear)[0]

    def log_joint(self) -> LogJoint:
        """Likelihood and prior of this problem."""
        to_log = dist.transforms.ExpTransform().inv
        precision = dist.TransformedDistribution(
            dist.Gamma(self.shape, self.rate), to_log
        )
        prior = PriorByPath(
            {"log_precision": precision, "linear": dist.Normal(0.0, self.prior_scale)}
        )
        return LogJoint(_normal, prior, num_data=len(self.y))


class ScaledLinear(eqx.Module):
    r"""$x \mapsto (s (w^\top x + b), s)$, mean and scale of a Gaussian.

    **Arguments:**

    - `linear`: in units of the noise.
    - `log_precision`: $-2 \log s$.
    """

    linear: eqx.nn.Linear
    log_precision: Float[Array, ""]

    def __call__(self, x):
        scale = jnp.exp(-0.5 * self.log_precision)
        return scale * self.linear(x), scale


def _normal(output):
    return dist.Normal(*output)
