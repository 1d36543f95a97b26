"""Draws from minibatches: the part that all stochastic-gradient samplers share."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._random.keys import example_keys
from ..._training.capabilities import AbstractGradient
from ..._types import AbstractVar, PRNGKey
from ...tree._ravel import ravel
from .chains import AbstractChains, ChainState, check_chains
from .cosine_cycles import CosineCycles


class AbstractSGMCMC(AbstractChains, AbstractGradient):
    """The workflow of chains of stochastic-gradient steps: what is kept, and when.

    A final class says in `_move` how one step goes.
    """

    refuses: ClassVar = False
    learning_rate: AbstractVar[float | Callable[..., Array]]
    num_warmup: AbstractVar[int]
    thin: AbstractVar[int]

    @abc.abstractmethod
    def _move(
        self, key, position, momentum, log_density, step_size, noise_scale
    ) -> tuple[Array, Array, Array, PyTree]:
        """The next position and momentum; the log-density on the way, and what comes
        with it. The variance of the noise is multiplied by `noise_scale`.
        """

    def __check_init__(self):
        check_chains(self, num_warmup=0, thin=1, num_draws=1, num_chains=1)
        rate = self.learning_rate
        if not callable(rate) and not (np.ndim(rate) == 0 and rate > 0):
            raise ValueError(f"learning_rate={rate}: a positive number, or a schedule")
        cycles = self._cycles
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

    @property
    def _cycles(self) -> CosineCycles | None:
        rate = self.learning_rate
        return rate if isinstance(rate, CosineCycles) else None

    @property
    def num_steps(self) -> int:
        """Updates until all draws are kept."""
        if self._cycles is not None:
            cycles = self.num_draws // self._cycles.num_draws
            return self.num_warmup + cycles * self._cycles.length
        return self.num_warmup + self.thin * self.num_draws

    def num_kept(self, step: int | Int[Array, ""]) -> Int[Array, ""]:
        since = jnp.maximum(step - self.num_warmup, 0)
        if self._cycles is not None:
            return self._cycles.num_kept(since, self.thin)
        return since // self.thin

    def update_members(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, dict[str, Float[Array, " chains"]]]:
        rate = self.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        dtype = state.position.dtype
        step_size = jnp.asarray(rate, dtype) / self.log_joint.num_data
        noise_scale = jnp.ones((), dtype)
        if self._cycles is not None:
            noise_scale = self._cycles.noisy(state.step).astype(dtype)

        def chain(position, momentum, held, key):
            move_key, call_key = jax.random.split(key)
            log_density = self._log_density(state.model, held, batch, call_key)
            return self._move(
                move_key, position, momentum, log_density, step_size, noise_scale
            )

        keys = example_keys(key, self.num_chains)
        position, momentum, value, held = jax.vmap(chain)(
            state.position, state.kernel, state.statistics, keys
        )
        state = ChainState(
            position,
            momentum,
            self._record(state, position),
            state.divergences,
            held,
            state.step + 1,
            state.model,
        )
        return state, {"loss": -value / self.log_joint.num_data, "log_joint": value}

    def gradient(self, state: ChainState, batch: PyTree, *, key: PRNGKey) -> PyTree:
        """That of the log-density of each chain where it is."""

        def chain(position, held, key):
            _, call_key = jax.random.split(key)
            log_density = self._log_density(state.model, held, batch, call_key)
            return jax.grad(lambda vector: log_density(vector)[0])(position)

        keys = example_keys(key, self.num_chains)
        slopes = jax.vmap(chain)(state.position, state.statistics, keys)
        return jax.vmap(ravel(self._split(state.model)[0])[1])(slopes)

    def _log_density(self, model, held, batch, key):
        """Of ravelled random leaves, on a batch; and the running statistics after."""
        joint = self.log_joint
        params, rest = self._split(model)
        unravel = ravel(params)[1]

        def log_density(vector):
            params = unravel(vector)
            drawn = eqx.combine(params, held, rest)
            value, after = joint.with_statistics(drawn, batch, key=key)
            value = (value + joint.log_prior(params)) / joint.temperature
            return value, held if after is None else after

        return log_density

    def _kernel(self, position, *, key):
        return jax.random.normal(key, position.shape, position.dtype)
