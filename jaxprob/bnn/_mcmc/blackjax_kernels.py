"""Transitions and adaptation of blackjax.

It is imported when a sampler runs, because its import takes as long as that of optax.
Some of its lines mix dtypes and ranks, so it runs under JAX's standard promotion rules
whatever the user's rules are. The results have the dtypes of the arguments.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..._types import PRNGKey

LogDensity = Callable[[Any], Any]


@contextlib.contextmanager
def standard_promotion() -> Iterator[None]:
    """Work under the promotion rules that JAX has by default."""
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        yield


class HMCState(eqx.Module):
    """Position of a chain, or of several, with the log density and gradient there."""

    position: Float[Array, "*chains dim"]
    log_density: Float[Array, "*chains"]
    gradient: Float[Array, "*chains dim"]


class HMCInfo(NamedTuple):
    """Statistics of a transition.

    **Fields:**

    - `acceptance`: probability with which the end of the trajectory is accepted.
    - `divergent`: 1 where the energy error was too large, else 0.
    - `num_leapfrog`: leapfrog steps made.
    - `energy`: potential and kinetic energy of the state that the transition ends in.
    - `tree_depth`: doublings of the trajectory; `None` where it has a fixed length.
    """

    acceptance: Float[Array, "*chains"]
    divergent: Float[Array, "*chains"]
    num_leapfrog: Float[Array, "*chains"]
    energy: Float[Array, "*chains"]
    tree_depth: Float[Array, "*chains"] | None = None

    @property
    def by_name(self) -> dict[str, Float[Array, "*chains"]]:
        """The statistics that the sampler has."""
        return {k: v for k, v in self._asdict().items() if v is not None}


def hmc_init(position: Float[Array, " dim"], log_density: LogDensity) -> HMCState:
    """Evaluate the log density and its gradient at a position."""
    value, gradient = jax.value_and_grad(log_density)(position)
    return HMCState(position, jnp.asarray(value, position.dtype), gradient)


def hmc_step(
    key: PRNGKey,
    state: HMCState,
    log_density: LogDensity,
    *,
    step_size: Any,
    inverse_mass: Float[Array, " dim"],
    num_leapfrog: int,
) -> tuple[HMCState, HMCInfo]:
    """Make one transition of Hamiltonian Monte Carlo."""
    from blackjax.mcmc import hmc

    with standard_promotion():
        return transition(
            hmc.build_kernel(),
            (key, state, log_density, step_size, inverse_mass, num_leapfrog),
        )[:2]


def nuts_step(
    key: PRNGKey,
    state: HMCState,
    log_density: LogDensity,
    *,
    step_size: Any,
    inverse_mass: Float[Array, " dim"],
    max_doublings: int,
) -> tuple[HMCState, HMCInfo]:
    """Make one transition of the no-U-turn sampler."""
    from blackjax.mcmc import nuts

    with standard_promotion():
        state, info, found = transition(
            nuts.build_kernel(),
            (key, state, log_density, step_size, inverse_mass, max_doublings),
        )
        depth = jnp.asarray(found.num_trajectory_expansions, state.position.dtype)
        return state, info._replace(tree_depth=depth)


def transition(kernel: Callable, arguments: tuple) -> tuple[HMCState, HMCInfo, Any]:
    """Return state and statistics after one call of a kernel, and its own ones."""
    from blackjax.mcmc import hmc

    key, state, *rest = arguments
    dtype = state.position.dtype
    start = hmc.HMCState(state.position, state.log_density, state.gradient)
    end, info = kernel(key, start, *rest)
    found = (
        info.acceptance_rate,
        info.is_divergent,
        info.num_integration_steps,
        info.energy,
    )
    return (
        HMCState(*(jnp.asarray(part, dtype) for part in end)),
        HMCInfo(*(jnp.asarray(part, dtype) for part in found)),
        info,
    )


def _step_size(target_acceptance):
    from blackjax.adaptation.step_size import dual_averaging_adaptation

    return dual_averaging_adaptation(target_acceptance)


def _mass():
    from blackjax.adaptation.mass_matrix import mass_matrix_adaptation

    return mass_matrix_adaptation(is_diagonal_matrix=True)


def warmup_schedule(
    num_warmup: int,
) -> tuple[Int[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Return Stan's windows: for each step, whether it is in a slow window, and
    whether it is the last step of that window.
    """
    from blackjax.adaptation.staged_adaptation import build_schedule

    if num_warmup == 0:
        return np.zeros(1, np.int32), np.zeros(1, bool)
    with jax.ensure_compile_time_eval(), standard_promotion():
        schedule = np.asarray(build_schedule(num_warmup))
    return schedule[:, 0].astype(np.int32), schedule[:, 1].astype(bool)


def warmup_init(
    position: Float[Array, " dim"], *, step_size: float, target_acceptance: float
) -> PyTree:
    """Return the state of Stan's warm-up: dual averaging, and a diagonal mass matrix.

    **Arguments:**

    - `position`: of the chain.
    - `step_size`: where its adaptation starts.
    - `target_acceptance`: acceptance rate that the step size is adapted to.
    """
    with standard_promotion():
        averaging = _step_size(target_acceptance)[0](step_size)
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
    *,
    slow: Int[Array, ""],
    ends: Bool[Array, ""],
    target_acceptance: float,
) -> PyTree:
    """Return the state of the warm-up after one transition.

    **Arguments:**

    - `state`: of the warm-up before it.
    - `position`, `acceptance`: of the transition.
    - `slow`, `ends`: of this step, from `warmup_schedule`.
    - `target_acceptance`: as in `warmup_init`.
    """
    start, step, final = _step_size(target_acceptance)
    _, collect, estimate = _mass()
    with standard_promotion():
        averaging, mass = state
        averaging = step(averaging, acceptance)
        mass = _select(slow == 1, collect(mass, position), mass)
        # The step at the end of a window counts too; then the step size starts anew.
        done = (start(final(averaging)), estimate(mass))
        out = _select(ends, done, (averaging, mass))
        return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), out, state)


def warmup_values(
    state: PyTree,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, " dim"]]:
    """Return the step size during warm-up, that after it, and the inverse mass."""
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
    noise_scale: Any = 1.0,
) -> Float[Array, " dim"]:
    r"""Return $w + \epsilon g + s \sqrt{2 \epsilon}\, \xi$; s is `noise_scale`."""
    from blackjax.sgmcmc.diffusions import overdamped_langevin

    with standard_promotion():
        step = overdamped_langevin()
        out = step(key, position, gradient, step_size, noise_scale**2)
        return jnp.asarray(out, position.dtype)


def momentum_step(
    key: PRNGKey,
    position: Float[Array, " dim"],
    momentum: Float[Array, " dim"],
    gradient: Float[Array, " dim"],
    *,
    step_size: Any,
    friction: float,
    noise_scale: Any = 1.0,
) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    r"""Return $w + h p$ and $(1 - a) p + h g + s \sqrt{2 a}\, \xi$.

    Here s is `noise_scale`. The SGHMC kernel of blackjax draws a new momentum in each
    call and uses one key twice, so only its integrator is used.
    """
    from blackjax.sgmcmc.diffusions import sghmc

    with standard_promotion():
        step = sghmc(alpha=friction / step_size)
        moved = step(key, position, momentum, gradient, step_size, noise_scale**2)
        return (
            jnp.asarray(moved[0], position.dtype),
            jnp.asarray(moved[1], momentum.dtype),
        )


def _select(condition, new, old):
    return jax.tree.map(
        lambda a, b: jnp.where(condition, jnp.asarray(a, jnp.result_type(b)), b),
        new,
        old,
    )
