"""All that is used of blackjax, in one place.

It is imported when a sampler runs: its import costs as much as optax's. Some of its
lines mix dtypes and ranks, so it runs under JAX's ordinary promotion rules whatever the
user's are; what comes back has the dtypes that went in.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._types import PRNGKey

LogDensity = Callable[[Any], Any]


@contextlib.contextmanager
def _ordinary_promotion():
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


class Place(eqx.Module):
    """Where a chain is, or each of several, and what was evaluated there."""

    position: Float[Array, "*chains dim"]
    log_density: Float[Array, "*chains"]
    gradient: Float[Array, "*chains dim"]


def evaluate_at(position: Float[Array, " dim"], log_density: LogDensity) -> Place:
    """The density and its gradient at a position."""
    value, gradient = jax.value_and_grad(log_density)(position)
    return Place(position, jnp.asarray(value, position.dtype), gradient)


def hamiltonian_step(
    key: PRNGKey,
    place: Place,
    log_density: LogDensity,
    *,
    step_size: Any,
    inverse_mass: Float[Array, " dim"],
    num_leapfrog: int | None,
    max_doublings: int,
) -> tuple[Place, dict[str, Array]]:
    """One transition of NUTS, or of HMC with `num_leapfrog` steps.

    **Returns:** the next place, and `acceptance`, `divergent` and `num_leapfrog` of the
    transition.
    """
    from blackjax.mcmc import hmc, nuts

    dtype = place.position.dtype
    density: Any = place.log_density  # to blackjax's types a float
    with _ordinary_promotion():
        state: Any = hmc.HMCState(place.position, density, place.gradient)
        if num_leapfrog is None:
            state, info = nuts.build_kernel()(
                key, state, log_density, step_size, inverse_mass, max_doublings
            )
        else:
            state, info = hmc.build_kernel()(
                key, state, log_density, step_size, inverse_mass, num_leapfrog
            )
        facts = {
            "acceptance": info.acceptance_rate,
            "divergent": info.is_divergent,
            "num_leapfrog": info.num_integration_steps,
        }
        found = Place(*(jnp.asarray(part, dtype) for part in state))
        return found, {name: jnp.asarray(a, dtype) for name, a in facts.items()}


def _step_size(target):
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation(target)


def _mass():
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation

    return mass_matrix_adaptation(is_diagonal_matrix=True)


def warmup_schedule(num: int) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Stan's windows: for each step whether it is in a slow one, and ends it."""
    from blackjax.adaptation.staged_adaptation import build_schedule

    if num == 0:
        return np.zeros(1, np.int32), np.zeros(1, bool)
    with jax.ensure_compile_time_eval(), _ordinary_promotion():
        schedule = np.asarray(build_schedule(num))
    return schedule[:, 0].astype(np.int32), schedule[:, 1].astype(bool)


def warmup_init(
    position: Float[Array, " dim"], *, target: float, step_size: float
) -> PyTree:
    """The state of Stan's warm-up: dual averaging, and a diagonal mass matrix."""
    with _ordinary_promotion():
        averaging = _step_size(target)[0](step_size)
        mass = _mass()[0](position.size)
        return jax.tree.map(
            lambda a: jnp.asarray(
                a, jnp.int32 if jnp.result_type(a).kind == "i" else position.dtype
            ),
            (averaging, mass),
        )


def warmup_update(
    state: PyTree,
    position: Float[Array, " dim"],
    acceptance: Float[Array, ""],
    slow: Int[Array, ""],
    ends: Bool[Array, ""],
    *,
    target: float,
) -> PyTree:
    """The state after one step of warm-up."""
    start, step, final = _step_size(target)
    _, collect, estimate = _mass()
    with _ordinary_promotion():
        averaging, mass = state
        averaging = step(averaging, acceptance)
        mass = _select(slow == 1, collect(mass, position), mass)
        # The last one counts: a window's end starts the step size anew.
        done = (start(final(averaging)), estimate(mass))
        out = _select(ends, done, (averaging, mass))
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), out, state)


def warmup_values(
    state: PyTree, *, target: float
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " dim"]]:
    """Step size while warming up, step size afterwards, inverse mass matrix."""
    averaging, mass = state
    dtype = mass.inverse_mass_matrix.dtype
    current = jnp.exp(averaging.log_step_size).astype(dtype)
    final = jnp.exp(averaging.log_step_size_avg).astype(dtype)
    return current, final, mass.inverse_mass_matrix


def langevin_step(
    key: PRNGKey,
    position: Float[Array, " dim"],
    gradient: Float[Array, " dim"],
    *,
    step_size: Any,
    heat: Any = 1.0,
) -> Float[Array, " dim"]:
    r"""$w + \epsilon g + \sqrt{2 h \epsilon}\, \xi$, where $h$ is `heat`."""
    from blackjax.sgmcmc.diffusions import overdamped_langevin

    with _ordinary_promotion():
        out = overdamped_langevin()(key, position, gradient, step_size, heat)
        return jnp.asarray(out, position.dtype)


def momentum_step(
    key: PRNGKey,
    position: Float[Array, " dim"],
    momentum: Float[Array, " dim"],
    gradient: Float[Array, " dim"],
    *,
    step_size: Any,
    friction: float,
    heat: Any = 1.0,
) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    r"""$w + h p$, and $(1 - a) p + h g + \sqrt{2 a}\, \xi$; `heat` scales the noise's
    variance.

    blackjax's own kernel draws a new momentum in each call and uses one key for two
    things, so only its integrator is used.
    """
    from blackjax.sgmcmc.diffusions import sghmc

    with _ordinary_promotion():
        step = sghmc(alpha=friction / step_size)
        position_, momentum_ = step(key, position, momentum, gradient, step_size, heat)
        return (
            jnp.asarray(position_, position.dtype),
            jnp.asarray(momentum_, momentum.dtype),
        )


def _select(condition, new, old):
    return jax.tree.map(
        lambda a, b: jnp.where(condition, jnp.asarray(a, jnp.result_type(b)), b),
        new,
        old,
    )
