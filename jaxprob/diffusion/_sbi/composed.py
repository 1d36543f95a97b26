"""The posterior given several independent observations, from that given one."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .._denoiser.denoiser import AbstractDenoiser
from .._denoiser.units import Units
from .._schedule.edm import EDM
from .._schedule.schedule import AbstractSchedule
from .._types import Cond, Level


class Composed(AbstractDenoiser):
    r"""The denoiser of $p(\theta \mid x_1, \dots, x_n)$ from those of each observation.

    Of n independent observations of one $\theta$ the posterior is proportional to
    $p(\theta)^{1 - n} \prod_i p(\theta \mid x_i)$, but with noise the scores do not
    add up. If all of these distributions were normal, with the precisions $P$ of the
    prior and $P + Q_i$ of each posterior, the exact denoiser would be

    $$\Lambda D = \sum_i (P + Q_i + s^{-2}) D_i + (1 - n)(P \mu + s^{-2} x), \qquad
      \Lambda = P + \sum_i Q_i + s^{-2},$$

    and it is used for other posteriors $D_i$ too.

    Reference: *Diffusion posterior sampling for simulation-based inference in tall data
    settings*, Linhart, Cardoso, Gramfort, Le Corff and Rodrigues, 2024,
    https://arxiv.org/abs/2404.07593, section 3, in terms of denoisers; *Compositional
    Score Modeling for Simulation-based Inference*, Geffner, Papamakarios and Mnih,
    2023.

    **Fields:**

    - `denoiser`: of one posterior, of the coordinates x - `shift`.
    - `conditions`, `shifts`: of each observation.
    - `mean`, `precision`: $\mu$ and $P$ of the prior.
    - `information`: $Q_i$, positive semi-definite.
    """

    denoiser: AbstractDenoiser
    conditions: Float[Array, "n members size"]
    shifts: Float[Array, "n dim"]
    mean: Float[Array, " dim"]
    precision: Float[Array, "dim dim"]
    information: Float[Array, "n dim dim"]
    schedule: AbstractSchedule = EDM()

    def denoise(
        self,
        x: Float[Array, " dim"],
        level: Level,
        cond: Cond = None,
        *,
        key: PRNGKey | None = None,
    ) -> Float[Array, " dim"]:
        num, size = self.shifts.shape
        noise = jnp.eye(size, dtype=x.dtype) / level**2

        def weighted(condition, shift, information):
            there = shift + self.denoiser.denoise(x - shift, level, condition)
            return (self.precision + information + noise) @ there

        each = jax.vmap(weighted)(self.conditions, self.shifts, self.information)
        prior = self.precision @ self.mean + x / level**2
        total = self.precision + jnp.sum(self.information, axis=0) + noise
        return jnp.linalg.solve(total, jnp.sum(each, axis=0) + (1.0 - num) * prior)

    def standardised(self) -> tuple[AbstractDenoiser, Units]:
        return self, Units()


def information(
    draws: Float[Array, "n draws dim"], precision: Float[Array, "dim dim"]
) -> Float[Array, "n dim dim"]:
    """Return how much more precise each posterior is than the prior.

    A posterior that is wider than the prior along a direction, by the error of its
    draws or because it has several modes, has no information there.
    """
    root = jnp.linalg.cholesky(precision)

    def one(rows):
        # In coordinates in which the prior's precision is 1.
        white = (rows - jnp.mean(rows, axis=0, keepdims=True)) @ root
        covariance = white.T @ white / (len(rows) - 1)
        values, vectors = jnp.linalg.eigh(covariance)
        extra = jnp.maximum(1.0 / jnp.maximum(values, 1e-8) - 1.0, 0.0)
        factor = root @ vectors
        return (factor * extra[None]) @ factor.T

    return jax.vmap(one)(draws)


@eqx.filter_jit
def moments(u: Float[Array, "rows dim"]) -> tuple[Array, Array]:
    """Return the mean and the precision of rows."""
    mean = jnp.mean(u, axis=0)
    left = u - mean[None]
    return mean, jnp.linalg.inv(left.T @ left / (len(u) - 1))
