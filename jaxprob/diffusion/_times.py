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
