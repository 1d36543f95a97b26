"""Steps of microcanonical Langevin dynamics, by blackjax."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._types import PRNGKey
from .blackjax_kernels import (
    HMCInfo,
    HMCState,
    LogDensity,
    standard_promotion,
    transition,
)


class MicrocanonicalState(eqx.Module):
    """Position and direction of a chain, or of several.

    **Fields:**

    - `position`: of the chain.
    - `momentum`: a unit vector.
    - `log_density`, `gradient`: at the position.
    """

    position: Float[Array, "*chains dim"]
    momentum: Float[Array, "*chains dim"]
    log_density: Float[Array, "*chains"]
    gradient: Float[Array, "*chains dim"]


class MicrocanonicalInfo(NamedTuple):
    """Statistics of a step.

    **Fields:**

    - `energy_change`: change of the energy, zero for exact dynamics.
    - `divergent`: 1 where the step was not finite and was undone, else 0.
    """

    energy_change: Float[Array, "*chains"]
    divergent: Float[Array, "*chains"]


def random_direction(key: PRNGKey, like: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Return a unit vector that is uniform on the sphere."""
    vector = jax.random.normal(key, like.shape, like.dtype)
    return vector / jnp.linalg.norm(vector)


def microcanonical_step(
    key: PRNGKey,
    state: MicrocanonicalState,
    log_density: LogDensity,
    *,
    step_size: Float[Array, ""],
    trajectory_length: Float[Array, ""],
    inverse_mass: Float[Array, " dim"],
) -> tuple[MicrocanonicalState, MicrocanonicalInfo]:
    """Make one step of the isokinetic integrator, with two gradients.

    A step to a position or density that is not finite is undone, and the direction is
    drawn again.
    """
    from blackjax.mcmc import mclmc
    from blackjax.mcmc.integrators import IntegratorState

    with standard_promotion():
        dtype = state.position.dtype
        # blackjax says `float` where it takes arrays too.
        make: Any = IntegratorState
        kernel: Any = mclmc.build_kernel()
        start = make(state.position, state.momentum, state.log_density, state.gradient)
        end, info = kernel(
            key, start, log_density, inverse_mass, trajectory_length, step_size
        )
        found = info.energy_change, jnp.logical_not(info.nonans)
        return (
            MicrocanonicalState(*(jnp.asarray(part, dtype) for part in end)),
            MicrocanonicalInfo(*(jnp.asarray(part, dtype) for part in found)),
        )


def adjusted_step(
    key: PRNGKey,
    state: HMCState,
    log_density: LogDensity,
    *,
    step_size: Float[Array, ""],
    inverse_mass: Float[Array, " dim"],
    num_steps: int,
) -> tuple[HMCState, HMCInfo]:
    """Make one microcanonical trajectory and accept or reject its end."""
    from blackjax.mcmc import adjusted_mclmc

    with standard_promotion():
        return transition(
            adjusted_mclmc.build_kernel(),
            (key, state, log_density, step_size, (num_steps,), inverse_mass),
        )[:2]
