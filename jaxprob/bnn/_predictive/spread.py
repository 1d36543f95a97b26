"""What any predictive derives from its mean and the two parts of its variance."""

import abc

import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float


class AbstractSpread(abc.ABC):
    """Mean, epistemic and aleatoric variance of y in each row, and what follows."""

    @property
    @abc.abstractmethod
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y."""

    @property
    @abc.abstractmethod
    def epistemic(self) -> Float[Array, "rows *out"]:
        r"""$\mathrm{Var}_s[\mathbb E[y \mid w_s]]$: what more data would take away."""

    @property
    @abc.abstractmethod
    def aleatoric(self) -> Float[Array, "rows *out"]:
        r"""$\mathbb E_s[\mathrm{Var}[y \mid w_s]]$: what the likelihood calls noise."""

    @property
    def variance(self) -> Float[Array, "rows *out"]:
        """Variance of y, by the law of total variance."""
        return self.epistemic + self.aleatoric

    @property
    def std(self) -> Float[Array, "rows *out"]:
        """Standard deviation of y."""
        return jnp.sqrt(self.variance)

    @property
    def moment_matched(self) -> dist.Normal:
        """The Gaussians with the mean and the standard deviation of the mixture.

        An approximation, of one hump where the mixture may have several:
        `predictive.moment_matched.log_prob(y)` is not `predictive.log_prob(y)`.
        """
        return dist.Normal(self.mean, self.std)
