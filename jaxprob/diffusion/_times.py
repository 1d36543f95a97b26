"""At which times a network is trained: maps of a uniform number to a time."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._types import PRNGKey
from ._schedule import AbstractSchedule
from ._types import Scalar


class AbstractTimes(eqx.Module):
    """A law of training times, told by its quantile function.

    As all randomness is in one uniform number, any law can be stratified.
    """

    @abc.abstractmethod
    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        """The time below which a fraction `u` of the law lies, u in (0, 1]."""


class UniformTimes(AbstractTimes):
    r"""Uniform between the schedule's ends: Song et al., 2021, Kidger's example."""

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        return schedule.t_min + (schedule.t_max - schedule.t_min) * u


class LogNormalLevels(AbstractTimes):
    r"""$\log(\sigma_t/\alpha_t)$ normal, cut off at the schedule's ends.

    Reference: Karras et al., 2022, section 5.

    **Arguments:**

    - `mean`, `std`: of the logarithm; -1.2 and 1.2 in the paper for data of standard
        deviation 0.5, which is about -0.5 for 1.
    """

    mean: float = eqx.field(default=-0.5, static=True)
    std: float = eqx.field(default=1.2, static=True)

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        low, high = (
            jax.scipy.special.ndtr((-schedule.log_snr(t) / 2.0 - self.mean) / self.std)
            for t in (schedule.t_min, schedule.t_max)
        )
        # Never the ends themselves, at which the logarithm may be infinite.
        inside = jnp.clip(low + (high - low) * u, 1e-6, 1.0 - 1e-6)
        log_level = self.mean + self.std * jax.scipy.special.ndtri(inside)
        return schedule.time_of_log_snr(-2.0 * log_level)


class LogitNormalTimes(AbstractTimes):
    r"""$\mathrm{logit}(t)$ normal, for times between 0 and 1: the middle counts most.

    Reference: *Scaling Rectified Flow Transformers for High-Resolution Image
    Synthesis*, Esser et al., 2024, section 3.1.

    **Arguments:**

    - `mean`, `std`: of the logit; 0 and 1 in the paper.
    """

    mean: float = eqx.field(default=0.0, static=True)
    std: float = eqx.field(default=1.0, static=True)

    def quantile(self, schedule: AbstractSchedule, u: Scalar) -> Scalar:
        inside = jnp.clip(u, 1e-6, 1.0 - 1e-6)
        logit = self.mean + self.std * jax.scipy.special.ndtri(inside)
        span = schedule.t_max - schedule.t_min
        return schedule.t_min + span * jax.nn.sigmoid(logit)


def uniforms(
    key: PRNGKey, mask: Bool[Array, " batch"], *, stratified: bool
) -> Float[Array, " batch"]:
    r"""One number in (0, 1] for each row of a batch.

    If stratified, the n rows that count get one number in each of the n intervals
    $(i/n, (i+1)/n]$: each is uniform still, and their mean varies far less. Padded rows
    take part in no interval.

    Reference: *Variational Diffusion Models*, Kingma et al., 2021, appendix I.1, has
    one offset for all rows; independent offsets, as in Kidger's example, keep rows
    independent given their interval.

    **Arguments:**

    - `key`: of the offsets.
    - `mask`: which rows count.
    - `stratified`: if not, rows are independent.
    """
    # 1 - u: `uniform` may give 0 but never 1, and at time 0 the noise level is 0.
    offset = 1.0 - jax.random.uniform(key, mask.shape)
    if not stratified:
        return offset
    rank = jnp.cumsum(mask) - 1
    count = jnp.maximum(jnp.sum(mask), 1).astype(offset.dtype)
    u = (jnp.maximum(rank, 0).astype(offset.dtype) + offset) / count
    return jnp.minimum(u, 1.0)
