"""Stochastic-gradient Langevin dynamics: draws from minibatches."""

from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from .._types import Info, Model, PRNGKey, Where
from ._blackjax import langevin_step
from ._draws import DrawsPosterior
from ._inference import AbstractInference, Roles
from ._log_joint import LogJoint
from ._prior import check_prior


class SGLDState(eqx.Module):
    """The state of one chain.

    **Fields:**

    - `model`: where the chain is.
    - `draws`: kept so far, random leaves ravelled.
    - `step`: updates made.
    """

    model: Model
    draws: Float[Array, "draws dim"]
    step: Int[Array, ""]


class SGLD(AbstractInference):
    r"""Gradient steps with the noise that makes their path a sample.

    $$w_{t+1} = w_t + \frac{\eta}{N} \nabla \log p_T(\mathcal B_t, w_t) + \sqrt{\frac{2
      \eta}{N}}\, \xi_t$$

    The gradient is that per row of data, so that $\eta$ is a learning rate as in MAP,
    whatever N is. For $\eta \to 0$ the draws are from the posterior. At a constant
    $\eta$ the spread is too large: along an eigenvector of the Hessian (per row) with
    eigenvalue $\lambda$ the variance is $1 / (1 - \eta \lambda / 2)$ times the
    posterior's with full batches, and more with the noise of small ones. Several chains
    are `DeepEnsemble(SGLD(...), 4)`.

    Reference: *Bayesian learning via stochastic gradient Langevin dynamics*, Welling
    and Teh, 2011.

    ```python
    method = SGLD(log_joint, 1e-3, start=5000, every=50, num_draws=100)
    state, _ = jaxprob.fit(method, model, (x, y), key=key, num_steps=method.num_steps)
    ```

    **Arguments:**

    - `log_joint`: likelihood, prior and N; the temperature belongs there.
    - `learning_rate`: $\eta$, or a schedule `step -> eta`.
    - `start`: updates before the first draw may be kept.
    - `every`: updates for each kept draw.
    - `num_draws`: draws kept; past them the oldest make room.
    - `random`: leaves to sample (see `jaxprob.tree`); all others stay as they are.
    """

    log_joint: LogJoint
    learning_rate: float | Callable[..., Array]
    start: int
    every: int
    num_draws: int
    random: Where | None = None

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

    def init(self, model: Model, *, key: PRNGKey | None = None) -> SGLDState:
        params = self._split(model)[0]
        check_prior(self.log_joint.prior, params)
        vector = ravel_pytree(params)[0]
        draws = jnp.zeros((self.num_draws, vector.size), vector.dtype)
        return SGLDState(model, draws, jnp.zeros((), jnp.int32))

    def update(
        self, state: SGLDState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[SGLDState, Info]:
        joint = self.log_joint
        params, rest = self._split(state.model)
        vector, unravel = ravel_pytree(params)
        noise_key, call_key = jax.random.split(key)

        def log_density(vector):
            params = unravel(vector)
            model = eqx.combine(params, rest)
            return joint(model, batch, key=call_key, params=params)

        value, gradient = jax.value_and_grad(log_density)(vector)
        rate = self.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        step_size = jnp.asarray(rate, vector.dtype) / joint.num_data
        vector = langevin_step(noise_key, vector, gradient, step_size=step_size)
        since = state.step + 1 - self.start
        due = (since > 0) & (since % self.every == 0)
        place = (since // self.every - 1) % self.num_draws
        draws = jnp.where(due, state.draws.at[place].set(vector), state.draws)
        state = SGLDState(eqx.combine(unravel(vector), rest), draws, state.step + 1)
        return state, {"loss": -value / joint.num_data, "log_joint": value}

    def evaluate(self, state: SGLDState, batch: PyTree, *, key: PRNGKey) -> Info:
        model = eqx.nn.inference_mode(state.model)
        value = self.log_joint.log_likelihood(model, batch, key=key)
        nll = -value / self.log_joint.num_data
        return {"loss": nll, "nll": nll}

    def model(self, state: SGLDState) -> Model:
        """Where the chain is: one draw."""
        return state.model

    def posterior(
        self,
        state: SGLDState,
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
