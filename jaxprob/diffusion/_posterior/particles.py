"""Weighted samples of a posterior, with the errors of what they estimate."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._random.keys import check_key
from ..._types import PRNGKey
from .._schedule.argument_checks import check_count
from .._types import Scalar


class Particles(eqx.Module):
    r"""N weighted samples of $p(x_0 \mid y)$, and an estimate of $\log p(y)$.

    Errors are estimated from the run itself, by the descendants of each first particle.

    Reference: *Variance estimation in the particle filter*, Lee and Whiteley, 2018,
    Biometrika 105, equations 8 and 9.

    **Fields:**

    - `x_0`: samples, in the units of the data.
    - `log_weights`: their logarithms; the weights sum to 1.
    - `log_evidence`: $\log p(y)$, in nats.
    - `levels`: noise levels of the run.
    - `ess`: effective sample size at each level, before resampling, and at the end.
    - `num_resampled`: number of levels at which particles were resampled.
    - `ancestors`: of each sample, the index of the first particle it descends from.
    """

    x_0: Float[Array, "particles ..."]
    log_weights: Float[Array, " particles"]
    log_evidence: Float[Array, ""]
    levels: Float[Array, " levels"]
    ess: Float[Array, " times"]
    num_resampled: Int[Array, ""]
    ancestors: Int[Array, " particles"]

    @property
    def log_evidence_error(self) -> Scalar:
        """Standard error of `log_evidence`."""
        families = self._families(jnp.exp(self.log_weights)[:, None])
        same = jnp.sum(families**2)
        return jnp.sqrt(jnp.maximum(1.0 - self._factor() * (1.0 - same), 0.0))

    @property
    def mean(self) -> Float[Array, "..."]:
        """Posterior mean."""
        return jnp.tensordot(jnp.exp(self.log_weights), self.x_0, axes=1)

    @property
    def mean_error(self) -> Float[Array, "..."]:
        """Standard error of `mean`, of each coordinate."""
        weights = jnp.exp(self.log_weights)
        centred = (self.x_0 - self.mean[None]).reshape(len(weights), -1)
        families = self._families(weights[:, None] * centred)
        squares = self._factor() * jnp.sum(families**2, axis=0)
        return jnp.sqrt(squares).reshape(self.mean.shape)

    @property
    def std(self) -> Float[Array, "..."]:
        """Posterior standard deviation of each coordinate."""
        squares = (self.x_0 - self.mean[None]) ** 2
        return jnp.sqrt(jnp.tensordot(jnp.exp(self.log_weights), squares, axes=1))

    def sample(self, *, key: PRNGKey, num_samples: int) -> Float[Array, "num ..."]:
        """Draw samples of equal weight, with replacement."""
        check_key(key)
        check_count("num_samples", num_samples, "draw at least one sample")
        index = jax.random.categorical(key, self.log_weights, shape=(num_samples,))
        return self.x_0[index]

    def _families(self, values):
        """Return the sums over the descendants of each first particle."""
        num = len(self.log_weights)
        return jax.ops.segment_sum(values, self.ancestors, num_segments=num)

    def _factor(self):
        num = jnp.asarray(len(self.log_weights), self.log_weights.dtype)
        times = self.num_resampled.astype(num.dtype) + 1.0
        return jnp.exp(-times * jnp.log1p(-1.0 / num))
