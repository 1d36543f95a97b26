"""Mean and variance of a predictive distribution, and what follows from them."""

import abc

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float


class AbstractMoments(eqx.Module):
    """Base class of predictives: mean, epistemic and aleatoric variance of each row."""

    @property
    @abc.abstractmethod
    def mean(self) -> Float[Array, "rows *out"]:
        """Mean of y."""

    @property
    @abc.abstractmethod
    def epistemic(self) -> Float[Array, "rows *out"]:
        r"""Variance of the mean, $\mathrm{Var}_s[\mathbb E[y \mid w_s]]$.

        More data would reduce it to zero. Its square root is a standard deviation.
        """

    @property
    @abc.abstractmethod
    def aleatoric(self) -> Float[Array, "rows *out"]:
        r"""Mean of the variance, $\mathbb E_s[\mathrm{Var}[y \mid w_s]]$: the noise."""

    @property
    def variance(self) -> Float[Array, "rows *out"]:
        """Variance of y, the sum of both parts."""
        return self.epistemic + self.aleatoric

    @property
    def std(self) -> Float[Array, "rows *out"]:
        """Standard deviation of y."""
        return jnp.sqrt(self.variance)

    @property
    def moment_matched(self) -> dist.Normal:
        """Gaussians with the mean and the standard deviation of the mixture.

        This is an approximation: it has one mode and the mixture may have several.
        `predictive.moment_matched.log_prob(y)` is not `predictive.log_prob(y)`.
        """
        return dist.Normal(self.mean, self.std)
