"""Stochastic-gradient samplers: the part that SGLD and SGHMC share."""

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..._random.keys import example_keys
from ..._training.capabilities import AbstractGradient
from ..._types import PRNGKey
from .chains import AbstractChains, ChainState, record
from .cosine_cycles import CosineCycles
from .kept_draws import KeptDraws
from .weight_vector import WeightVector

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class AbstractSGMCMC(AbstractChains, AbstractGradient):
    """Base class of samplers that move by gradients of minibatches.

    A final class says how one transition is made.

    **Fields:**

    - `learning_rate`: a number, or a schedule `step -> learning_rate`.
    """

    learning_rate: AbstractVar[float | Callable[..., Array]]

    def __check_init__(self):
        rate = self.learning_rate
        if not callable(rate) and not (np.ndim(rate) == 0 and rate > 0):
            raise ValueError(f"learning_rate={rate}: a positive number, or a schedule")
        cycles = self.schedule.cycles
        if cycles is None:
            return
        if cycles.num_draws * self.thin > cycles.length:
            raise ValueError(
                f"{cycles.num_draws} draws {self.thin} updates apart do not fit a "
                f"cycle of {cycles.length} updates"
            )
        if self.num_warmup % cycles.length or self.num_draws % cycles.num_draws:
            raise ValueError(
                f"num_warmup={self.num_warmup} and num_draws={self.num_draws} are not "
                f"whole cycles, which have {cycles.length} updates and "
                f"{cycles.num_draws} draws"
            )

    @abc.abstractmethod
    def transition(
        self,
        position: Float[Array, " dim"],
        momentum: Float[Array, " dim"],
        log_density: Callable[[Array], tuple[Array, PyTree]],
        *,
        step_size: Float[Array, ""],
        noise_scale: Float[Array, ""],
        key: PRNGKey,
    ) -> tuple[Array, Array, Array, PyTree]:
        r"""Make one transition of one chain.

        **Arguments:**

        - `position`, `momentum`: of the chain.
        - `log_density`: $\log p_T(\mathcal B_t, w)$ of ravelled random leaves, and the
            running statistics of the model there.
        - `step_size`: $\eta / N$.
        - `noise_scale`: factor on the standard deviation of the noise.
        - `key`: of the noise.

        **Returns:** position and momentum after it; log density and running statistics
        where the gradient was taken.
        """

    @property
    def schedule(self) -> KeptDraws:
        rate = self.learning_rate
        cycles = rate if isinstance(rate, CosineCycles) else None
        return KeptDraws(self.num_warmup, self.num_draws, self.thin, cycles)

    @property
    def remedy(self) -> str:
        rate = self.learning_rate
        given = "the learning rate" if callable(rate) else f"learning_rate={rate}"
        return f"Lower {given}; scale inputs and targets to unit variance"

    def init_kernel(
        self, position: Float[Array, "chains dim"], *, key: PRNGKey
    ) -> Float[Array, "chains dim"]:
        """Return the momentum of each chain, a draw from its stationary distribution
        in units of the step size.
        """
        return jax.random.normal(key, position.shape, position.dtype)

    def update_members(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, dict[str, Float[Array, " chains"]]]:
        rate = self.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        dtype = state.position.dtype
        step_size = jnp.asarray(rate, dtype) / self.log_joint.num_data
        noise_scale = jnp.ones((), dtype)
        if self.schedule.cycles is not None:
            noise_scale = self.schedule.cycles.noisy(state.step).astype(dtype)

        def chain(position, momentum, statistics, key):
            move_key, call_key = jax.random.split(key)
            return self.transition(
                position,
                momentum,
                self._log_density(state.model, statistics, batch, call_key),
                step_size=step_size,
                noise_scale=noise_scale,
                key=move_key,
            )

        keys = example_keys(key, self.num_chains)
        position, momentum, value, statistics = jax.vmap(chain)(
            state.position, state.kernel, state.statistics, keys
        )
        draws, stats = record(self, state, position, {})
        state = ChainState(
            position,
            momentum,
            draws,
            state.divergences,
            statistics,
            state.step + 1,
            state.model,
            stats,
        )
        return state, {"loss": -value / self.log_joint.num_data, "log_joint": value}

    def gradient(self, state: ChainState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        """Return the gradient of the log density at the position of each chain."""

        def chain(position, statistics, key):
            _, call_key = jax.random.split(key)
            log_density = self._log_density(state.model, statistics, batch, call_key)
            return jax.grad(lambda vector: log_density(vector)[0])(position)

        keys = example_keys(key, self.num_chains)
        slopes = jax.vmap(chain)(state.position, state.statistics, keys)
        return jax.vmap(WeightVector.of(state.model, self.random).unravel)(slopes)

    def _log_density(self, model, statistics, batch, key):
        """The log density of ravelled random leaves on a batch, and the statistics."""
        joint = self.log_joint
        leaves = WeightVector.of(model, self.random)

        def log_density(vector):
            params = leaves.unravel(vector)
            drawn = leaves.model(params, statistics)
            value, after = joint.with_statistics(drawn, batch, key=key)
            value = (value + joint.log_prior(params)) / joint.temperature
            return value, statistics if after is None else after

        return log_density
