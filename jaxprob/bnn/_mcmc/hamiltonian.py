"""Hamiltonian Monte Carlo on the whole data set: the part that NUTS and HMC share."""

import abc
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..._jaxpr.host_errors import checks_give_nan
from ..._random.keys import example_keys
from ..._training.capabilities import AbstractAcceptReject
from ..._types import PRNGKey
from .blackjax_kernels import (
    HMCInfo,
    HMCState,
    LogDensity,
    hmc_init,
    warmup_init,
    warmup_schedule,
    warmup_update,
    warmup_values,
)
from .chains import ChainState, record
from .full_batch import AbstractFullBatch

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractHamiltonian(AbstractFullBatch, AbstractAcceptReject):
    """Base class of samplers that reject transitions, with Stan's warm-up.

    The data set is the same in each update, so a transition begins with the log density
    and the gradient that the last one computed. A final class says how one transition
    is made.

    **Fields:**

    - `step_size`: where its adaptation starts.
    - `target_acceptance`: acceptance rate that the step size is adapted to.
    """

    step_size: AbstractVar[float]
    target_acceptance: AbstractVar[float]

    def __check_init__(self):
        if not 0 < self.target_acceptance < 1:
            raise ValueError(
                f"target_acceptance={self.target_acceptance}: it is a rate in (0, 1)"
            )
        if not self.step_size > 0:
            raise ValueError(f"step_size={self.step_size}: it has to be positive")

    @abc.abstractmethod
    def transition(
        self,
        state: HMCState,
        log_density: LogDensity,
        *,
        step_size: Float[Array, ""],
        inverse_mass: Float[Array, " dim"],
        key: PRNGKey,
    ) -> tuple[HMCState, HMCInfo]:
        """Make one transition of one chain.

        **Arguments:**

        - `state`: of the chain.
        - `log_density`: of ravelled random leaves.
        - `step_size`, `inverse_mass`: as adapted.
        - `key`: of this transition.
        """

    @property
    def stats_names(self) -> tuple[str, ...]:
        info = ("acceptance", "divergent", "num_leapfrog", "energy")
        return ("log_density", "step_size", *info)

    @property
    def remedy(self) -> str:
        smaller = "Raise target_acceptance towards 0.99"
        if not self.num_warmup:
            smaller = f"Lower step_size={self.step_size}, or let num_warmup find one"
        return f"{smaller}; scale inputs and targets to unit variance; narrow the prior"

    def init_kernel(
        self, position: Float[Array, "chains dim"], *, key: PRNGKey
    ) -> PyTree:
        """Return the state of the warm-up, and log density and gradient.

        These two are NaN: the first update, which has the data, computes them.
        """

        def one(position):
            return warmup_init(
                position,
                step_size=self.step_size,
                target_acceptance=self.target_acceptance,
            )

        unknown = jnp.full_like(position, jnp.nan)
        return jax.vmap(one)(position), unknown[:, 0], unknown

    def update_members(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, dict[str, Float[Array, " chains"]]]:
        self.check_whole(batch)

        def log_density(vector):
            return self.log_density(state.model, vector, batch)

        def start(position):
            return hmc_init(position, log_density)

        def chain(before, warmup, key):
            current, final, mass = warmup_values(warmup)
            step_size = jnp.where(warming, current, final)
            if not self.num_warmup:
                step_size = jnp.asarray(self.step_size, final.dtype)
            after, info = self.transition(
                before, log_density, step_size=step_size, inverse_mass=mass, key=key
            )
            return after, info, step_size

        warming = state.step < self.num_warmup
        warmup, *known = state.kernel
        # Where a check inside the model fails, such as that of a solver that takes too
        # many steps, the density is NaN and the transition is rejected as a divergence.
        before = jax.lax.cond(
            state.step == 0,
            lambda: jax.vmap(checks_give_nan(start))(state.position),
            lambda: HMCState(state.position, *known),
        )
        keys = example_keys(key, self.num_chains)
        after, info, step_size = jax.vmap(checks_give_nan(chain))(before, warmup, keys)
        warmup = jax.lax.cond(
            warming,
            lambda: self._adapt(warmup, after.position, info.acceptance, state.step),
            lambda: warmup,
        )
        diverged = jnp.where(warming, 0, info.divergent.astype(jnp.int32))
        found = {
            "log_density": after.log_density,
            "step_size": step_size,
            **info.by_name,
        }
        draws, stats = record(self, state, after.position, found)
        state = ChainState(
            after.position,
            (warmup, after.log_density, after.gradient),
            draws,
            state.divergences + diverged,
            state.statistics,
            state.step + 1,
            state.model,
            stats,
        )
        return state, {"loss": -after.log_density / self.log_joint.num_data, **found}

    def _adapt(self, warmup, position, acceptance, step):
        """The warm-up of all chains after one transition."""
        slow, ends = warmup_schedule(self.num_warmup)
        now = jnp.minimum(step, len(slow) - 1)
        slow, ends = jnp.asarray(slow)[now], jnp.asarray(ends)[now]

        def one(warmup, position, acceptance):
            return warmup_update(
                warmup,
                position,
                acceptance,
                slow=slow,
                ends=ends,
                target_acceptance=self.target_acceptance,
            )

        return jax.vmap(one)(warmup, position, acceptance)
