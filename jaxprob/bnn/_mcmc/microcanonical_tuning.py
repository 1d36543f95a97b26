r"""Tuning of microcanonical Langevin dynamics during the warm-up.

The variance of the energy error of a step is proportional to $\epsilon^6$. The step
size follows an average over recent steps, so that this variance is the one that is
wanted. In the second half of the search the chain's mean and variance are estimated;
they give the mass, and the step size is found again for it.

Reference: *Microcanonical Hamiltonian Monte Carlo*, Robnik, De Luca, Silverstein and
Seljak, 2023, section 5, https://arxiv.org/abs/2212.08549.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_MEMORY = 150.0
"""Steps over which the step size is averaged."""

_TRUST = 1.5
"""Width, in factors of e of the step size, of the weights of that average."""


class Tuning(eqx.Module):
    """The state of the tuning of one chain.

    **Fields:**

    - `step_size`: in use now.
    - `weight`, `estimate`: sums of which the step size is made.
    - `largest`: bound on the step size after steps that were not finite.
    - `total`, `mean`, `square`: moments of the position, in time along the path.
    - `inverse_mass`: variances that scale the coordinates.
    - `trajectory_length`: after which the direction is forgotten.
    """

    step_size: Float[Array, ""]
    weight: Float[Array, ""]
    estimate: Float[Array, ""]
    largest: Float[Array, ""]
    total: Float[Array, ""]
    mean: Float[Array, " dim"]
    square: Float[Array, " dim"]
    inverse_mass: Float[Array, " dim"]
    trajectory_length: Float[Array, ""]


class Windows(NamedTuple):
    """Steps of the warm-up at which its parts begin.

    **Fields:**

    - `moments`: from here on mean and variance are estimated.
    - `mass`: here they become the mass, and the step size is found again.
    - `end`: of the warm-up.
    """

    moments: int
    mass: int
    end: int

    @classmethod
    def of(cls, num_warmup: int) -> "Windows":
        """Divide a warm-up: two fifths, two fifths, one fifth."""
        return cls(2 * num_warmup // 5, 4 * num_warmup // 5, num_warmup)


def tuning_init(
    position: Float[Array, " dim"],
    *,
    step_size: float,
    trajectory_length: float | None,
) -> Tuning:
    """Return the state before the first step.

    **Arguments:**

    - `position`: of the chain.
    - `step_size`: the first one.
    - `trajectory_length`: a fixed one; by default the root of the dimension.
    """
    dtype, dim = position.dtype, position.size
    zero = jnp.zeros((), dtype)
    length = dim**0.5 if trajectory_length is None else trajectory_length
    return Tuning(
        step_size=jnp.asarray(step_size, dtype),
        weight=zero,
        estimate=zero,
        largest=jnp.asarray(jnp.inf, dtype),
        total=zero,
        mean=jnp.zeros(dim, dtype),
        square=jnp.zeros(dim, dtype),
        inverse_mass=jnp.ones(dim, dtype),
        trajectory_length=jnp.asarray(length, dtype),
    )


def adapt_step_size(
    tuning: Tuning,
    energy_change: Float[Array, ""],
    divergent: Float[Array, ""],
    energy_variance: Float[Array, ""],
) -> Tuning:
    r"""Return the state with the step size after one more step.

    **Arguments:**

    - `energy_change`, `divergent`: of that step.
    - `energy_variance`: that is wanted, for one dimension.
    """
    step_size, bad = tuning.step_size, divergent > 0.0
    dim = tuning.mean.size
    excess = energy_change**2 / (dim * energy_variance) + 1e-8
    factor = jnp.exp(-0.5 * (jnp.log(excess) / (6.0 * _TRUST)) ** 2)
    factor = jnp.where(bad, 0.0, factor)
    decay = (_MEMORY - 1.0) / (_MEMORY + 1.0)
    weight = decay * tuning.weight + factor
    estimate = decay * tuning.estimate + factor * excess / step_size**6
    largest = jnp.where(
        bad, jnp.minimum(tuning.largest, 0.8 * step_size), tuning.largest
    )
    found = jnp.where(weight > 0.0, (weight / estimate) ** (1.0 / 6.0), step_size)
    return eqx.tree_at(
        lambda t: (t.step_size, t.weight, t.estimate, t.largest),
        tuning,
        (jnp.minimum(found, largest), weight, estimate, largest),
    )


def collect_moments(
    tuning: Tuning, position: Float[Array, " dim"], divergent: Float[Array, ""]
) -> Tuning:
    """Return the state with the moments after a step to a position."""
    time = jnp.where(divergent > 0.0, 0.0, tuning.step_size)
    total = tuning.total + time
    rate = jnp.where(total > 0.0, time / total, 0.0)
    mean = tuning.mean + rate * (position - tuning.mean)
    # Welford's form: a difference of squares would lose the digits of a large mean.
    square = tuning.square + time * (position - tuning.mean) * (position - mean)
    return eqx.tree_at(
        lambda t: (t.total, t.mean, t.square), tuning, (total, mean, square)
    )


def take_mass(
    tuning: Tuning, *, diagonal: bool, trajectory_length: float | None
) -> Tuning:
    """Return the state with mass and trajectory length from the moments.

    **Arguments:**

    - `diagonal`: whether each coordinate is scaled by its variance.
    - `trajectory_length`: a fixed one; by default the root of the sum of the variances
        in the scaled coordinates.
    """
    dim = tuning.mean.size
    variance = tuning.square / jnp.maximum(
        tuning.total, jnp.finfo(tuning.mean.dtype).tiny
    )
    known = jnp.all(variance > 0.0) & jnp.all(jnp.isfinite(variance))
    spread = jnp.where(known, jnp.sqrt(jnp.sum(variance)), dim**0.5)
    length, inverse_mass, step_size = spread, tuning.inverse_mass, tuning.step_size
    if diagonal:
        inverse_mass = jnp.where(known, variance, inverse_mass)
        length = jnp.full_like(spread, dim**0.5)
        # The same share of the trajectory, in the scaled coordinates.
        step_size = step_size * length / spread
    if trajectory_length is not None:
        length = jnp.full_like(spread, trajectory_length)
    zero, infinite = jnp.zeros_like(spread), jnp.full_like(spread, jnp.inf)
    return eqx.tree_at(
        lambda t: (
            t.step_size, t.weight, t.estimate, t.largest, t.inverse_mass,
            t.trajectory_length,
        ),
        tuning,
        (step_size, zero, zero, infinite, inverse_mass, length),
    )  # fmt: skip


def tuning_update(
    tuning: Tuning,
    position: Float[Array, " dim"],
    energy_change: Float[Array, ""],
    divergent: Float[Array, ""],
    *,
    step: Int[Array, ""],
    windows: Windows,
    energy_variance: Float[Array, ""],
    diagonal: bool,
    trajectory_length: float | None,
) -> Tuning:
    """Return the state of the tuning after one step of the warm-up.

    **Arguments:**

    - `position`, `energy_change`, `divergent`: of that step.
    - `step`: steps made before it.
    - `windows`: of the warm-up.
    - `energy_variance`: that is wanted, for one dimension.
    - `diagonal`, `trajectory_length`: as in `take_mass`.
    """
    tuning = adapt_step_size(tuning, energy_change, divergent, energy_variance)
    collects: Bool[Array, ""] = (step >= windows.moments) & (step < windows.mass)
    tuning = _where(collects, collect_moments(tuning, position, divergent), tuning)
    taken = take_mass(tuning, diagonal=diagonal, trajectory_length=trajectory_length)
    return _where(step == windows.mass - 1, taken, tuning)


def _where(condition, new, old):
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
