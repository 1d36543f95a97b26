"""Draws from minibatches: the part that all stochastic-gradient samplers share."""

import abc
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from .._types import Info, Model, PRNGKey, Where
from ._draws import DrawsPosterior
from ._inference import AbstractInference, Roles
from ._prior import check_prior


class SGMCMCState(eqx.Module):
    """The state of one chain.

    **Fields:**

    - `model`: where the chain is.
    - `momentum`: of the random leaves, ravelled; unused by Langevin dynamics.
    - `draws`: kept so far, random leaves ravelled.
    - `step`: updates made.
    """

    model: Model
    momentum: Float[Array, " dim"]
    draws: Float[Array, "draws dim"]
    step: Int[Array, ""]


class AbstractSGMCMC(AbstractInference):
    """The workflow of a chain of stochastic-gradient steps: what is kept, and when.

    A final class says in `_move` how one step goes.
    """

    learning_rate: eqx.AbstractVar[float | Callable[..., Array]]
    start: eqx.AbstractVar[int]
    every: eqx.AbstractVar[int]
    num_draws: eqx.AbstractVar[int]
    random: eqx.AbstractVar[Where | None]

    @abc.abstractmethod
    def _move(
        self, key, position, momentum, log_density, step_size
    ) -> tuple[Array, Array, Array]:
        """The next position and momentum, and the log-density on the way."""

    def __check_init__(self):
        if self.start < 0 or self.every < 1 or self.num_draws < 1:
            raise ValueError(
                f"start={self.start}, every={self.every}, num_draws={self.num_draws}: "
                "at least 0, 1 and 1"
            )

    @property
    def num_steps(self) -> int:
        """Updates until all draws are kept."""
        return self.start + self.every * self.num_draws

    def init(self, model: Model, *, key: PRNGKey) -> SGMCMCState:
        params = self._split(model)[0]
        check_prior(self.log_joint.prior, params)
        vector = ravel_pytree(params)[0]
        draws = jnp.zeros((self.num_draws, vector.size), vector.dtype)
        momentum = jax.random.normal(key, vector.shape, vector.dtype)
        return SGMCMCState(model, momentum, draws, jnp.zeros((), jnp.int32))

    def update(
        self, state: SGMCMCState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[SGMCMCState, Info]:
        joint = self.log_joint
        params, rest = self._split(state.model)
        vector, unravel = ravel_pytree(params)
        move_key, call_key = jax.random.split(key)

        def log_density(vector):
            params = unravel(vector)
            model = eqx.combine(params, rest)
            return joint(model, batch, key=call_key, params=params)

        rate = self.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        step_size = jnp.asarray(rate, vector.dtype) / joint.num_data
        vector, momentum, value = self._move(
            move_key, vector, state.momentum, log_density, step_size
        )
        since = state.step + 1 - self.start
        due = (since > 0) & (since % self.every == 0)
        place = (since // self.every - 1) % self.num_draws
        # A choice of the row, not of the buffer: that would copy it in every step.
        row = jnp.where(due, vector, state.draws[place])
        draws = state.draws.at[place].set(row)
        model = eqx.combine(unravel(vector), rest)
        state = SGMCMCState(model, momentum, draws, state.step + 1)
        return state, {"loss": -value / joint.num_data, "log_joint": value}

    def evaluate(self, state: SGMCMCState, batch: PyTree, *, key: PRNGKey) -> Info:
        model = eqx.nn.inference_mode(state.model)
        value = self.log_joint.log_likelihood(model, batch, key=key)
        nll = -value / self.log_joint.num_data
        return {"loss": nll, "nll": nll}

    def model(self, state: SGMCMCState) -> Model:
        """Where the chain is: one draw."""
        return state.model

    def posterior(
        self,
        state: SGMCMCState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> DrawsPosterior:
        """The draws kept so far.

        **Raises:** `ValueError` while there is none.
        """
        since = int(state.step) - self.start
        kept = min(max(since, 0) // self.every, self.num_draws)
        if kept == 0:
            raise ValueError(
                f"no draw yet: {int(state.step)} updates were made, and the first draw "
                f"is kept after {self.start + self.every}"
            )
        params, rest = self._split(state.model)
        unravel = ravel_pytree(params)[1]
        return DrawsPosterior(
            jax.vmap(jax.vmap(unravel))(state.draws[None, :kept]), rest
        )

    def _split(self, model):
        roles = Roles.of(model, self.random, False)
        return eqx.partition(model, roles.random)
