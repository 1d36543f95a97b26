"""Hamiltonian Monte Carlo on the whole data set: the judge of everything else."""

import warnings
from collections.abc import Iterable
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, PyTree

from .._batch import num_rows, unpack
from .._keys import example_keys
from .._types import Info, Model, PRNGKey, Where
from ._blackjax import (
    hamiltonian_step,
    warmup_init,
    warmup_schedule,
    warmup_update,
    warmup_values,
)
from ._draws import DrawsPosterior
from ._inference import AbstractInference, Roles
from ._log_joint import LogJoint
from ._prior import check_prior, sample_prior


class ChainState(eqx.Module):
    """The state of all chains.

    **Fields:**

    - `position`: the random leaves of each chain, ravelled.
    - `warmup`: of step size and mass matrix, one for each chain.
    - `draws`: kept so far; the rows from `kept` on are zero.
    - `divergences`: of each chain, after warm-up.
    - `step`: transitions made.
    - `model`: gives the structure and the leaves that are not random.
    """

    position: Float[Array, "chains dim"]
    warmup: PyTree
    draws: Float[Array, "chains draws dim"]
    divergences: Int[Array, " chains"]
    step: Int[Array, ""]
    model: Model


class NUTS(AbstractInference):
    r"""Draws from the exact posterior by the no-U-turn sampler, several chains at once.

    Each update is one transition of every chain, and needs the **whole** data set as
    its batch. During the first `num_warmup` the step size and a diagonal mass matrix
    are adapted in Stan's windows; of the transitions after them every `thin`-th is
    kept.

    The bias vanishes with the number of draws, so this is what other methods are
    compared with where the data and the network are small: some thousand rows, some
    thousand weights. Look at `rhat` of the outputs.

    References: *The no-U-turn sampler*, Hoffman and Gelman, 2014,
    https://arxiv.org/abs/1111.4246; kernels and adaptation are blackjax's.

    ```python
    method = NUTS(log_joint, num_warmup=500, num_draws=500)
    state, _ = jaxprob.fit(method, model, (x, y), key=key,
                           num_steps=method.num_steps, batch_size=len(x))
    predictive = predict(method.posterior(state), log_joint.likelihood, x, key=key)
    ```

    **Arguments:**

    - `log_joint`: the target; `num_data` is the number of rows of the batch.
    - `num_warmup`, `num_draws`: transitions of each chain, and draws kept of each.
    - `num_chains`: side by side in one program.
    - `thin`: transitions for each kept draw.
    - `random`: leaves to sample (see `jaxprob.tree`), as in `MAP`; all others stay as
        they are: there are no points.
    - `start`: each chain starts at a draw from the `"prior"`, or all at the `"model"`.
    - `num_leapfrog`: a fixed number of leapfrog steps makes this plain HMC.
    - `target`: acceptance rate that the step size is adapted to.
    - `step_size`: where its adaptation starts; with `num_warmup=0` it is used as it is.
    - `max_doublings`: a trajectory has at most 2 to this power steps.
    """

    log_joint: LogJoint
    num_warmup: int = 500
    num_draws: int = 500
    num_chains: int = 4
    thin: int = 1
    random: Where | None = None
    start: Literal["prior", "model"] = "prior"
    num_leapfrog: int | None = None
    target: float = 0.8
    step_size: float = 0.1
    max_doublings: int = 10

    def __check_init__(self):
        least = {"num_warmup": 0, "num_draws": 1, "num_chains": 1, "thin": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ValueError(
                    f"{name}={getattr(self, name)}: it is at least {smallest}"
                )
        if not 0 < self.target < 1:
            raise ValueError(f"target={self.target}: an acceptance rate in (0, 1)")
        if self.start not in ("prior", "model"):
            raise ValueError(f"start={self.start!r}: it is 'prior' or 'model'")

    @property
    def num_steps(self) -> int:
        """Updates from the first to the last draw."""
        return self.num_warmup + self.num_draws * self.thin

    def init(self, model: Model, *, key: PRNGKey) -> ChainState:
        roles = Roles.of(model, self.random, False)
        params = eqx.filter(model, roles.random)
        check_prior(self.log_joint.prior, params)

        def start(key):
            if self.start == "model":
                return ravel_pytree(params)[0]
            prior = self.log_joint.prior
            drawn = sample_prior(model, prior, key=key, where=roles.random)
            return ravel_pytree(eqx.filter(drawn, roles.random))[0]

        position = jax.vmap(start)(example_keys(key, self.num_chains))
        shape = (self.num_chains, self.num_draws, position.shape[1])
        warmup = jax.vmap(
            lambda p: warmup_init(p, target=self.target, step_size=self.step_size)
        )(position)
        return ChainState(
            position,
            warmup,
            draws=jnp.zeros(shape, position.dtype),
            divergences=jnp.zeros(self.num_chains, jnp.int32),
            step=jnp.zeros((), jnp.int32),
            model=model,
        )

    def update(
        self, state: ChainState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[ChainState, Info]:
        self._check_rows(batch)
        warming = state.step < self.num_warmup
        slow, ends = warmup_schedule(self.num_warmup)
        now = jnp.minimum(state.step, len(slow) - 1)
        slow, ends = jnp.asarray(slow)[now], jnp.asarray(ends)[now]

        def chain(position, warmup, key):
            current, final, mass = warmup_values(warmup, target=self.target)
            step_size = jnp.where(warming, current, final)
            if not self.num_warmup:
                step_size = jnp.asarray(self.step_size, position.dtype)
            position, facts = hamiltonian_step(
                key,
                position,
                lambda vector: self._log_density(state.model, vector, batch),
                step_size=step_size,
                inverse_mass=mass,
                num_leapfrog=self.num_leapfrog,
                max_doublings=self.max_doublings,
            )
            after = warmup_update(
                warmup, position, facts["acceptance"], slow, ends, target=self.target
            )
            warmup = jax.tree.map(
                lambda new, old: jnp.where(warming, new, old), after, warmup
            )
            return position, warmup, {**facts, "step_size": step_size}

        keys = example_keys(key, self.num_chains)
        position, warmup, facts = jax.vmap(chain)(state.position, state.warmup, keys)
        since = state.step - self.num_warmup
        due = (~warming) & ((since + 1) % self.thin == 0)
        # Past the last one the oldest draws make room.
        place = (since // self.thin) % self.num_draws
        # A choice of the rows, not of the buffer: that would copy it in every step.
        kept = jnp.where(due, position, state.draws[:, place])
        divergent = facts.pop("divergent")
        state = ChainState(
            position,
            warmup,
            state.draws.at[:, place].set(kept),
            state.divergences + jnp.where(warming, 0, divergent.astype(jnp.int32)),
            state.step + 1,
            state.model,
        )
        info = {name: jnp.mean(value) for name, value in facts.items()}
        info["divergent"] = jnp.mean(divergent)
        return state, {"loss": -info["log_density"] / self.log_joint.num_data, **info}

    def evaluate(self, state: ChainState, batch: PyTree, *, key: PRNGKey) -> Info:
        """The mean over chains of the log-likelihood where they are."""

        def one(vector):
            model = self._model(state.model, vector)
            return self.log_joint.log_likelihood(model, batch, key=key)

        nll = -jnp.mean(jax.vmap(one)(state.position)) / self.log_joint.num_data
        return {"loss": nll, "nll": nll}

    def model(self, state: ChainState) -> Model:
        """The model where the first chain is: one draw."""
        return self._model(state.model, state.position[0])

    def posterior(
        self,
        state: ChainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> DrawsPosterior:
        """All draws kept so far.

        **Raises:** `ValueError` while there is none, or when every transition of a
        chain diverged. Warns of divergences.
        """
        since = int(state.step) - self.num_warmup
        kept = min(max(since, 0) // self.thin, self.num_draws)
        if kept == 0:
            raise ValueError(
                f"no draw yet: {int(state.step)} updates were made, and the first is "
                f"kept after {self.num_warmup + self.thin}. Train for "
                f"num_steps={self.num_steps}."
            )
        worst = int(jnp.max(state.divergences))
        total = int(jnp.sum(state.divergences))
        advice = (
            "Raise target towards 0.99, scale inputs and targets to unit variance, or "
            "use a narrower prior."
        )
        if worst >= since:
            chain = int(jnp.argmax(state.divergences))
            raise ValueError(
                f"chain {chain} diverged in each of its {since} transitions and never "
                f"moved. {advice}"
            )
        if total:
            warnings.warn(
                f"{total} of {since * self.num_chains} transitions diverged: draws "
                f"near there are missing and the posterior is biased. {advice}",
                stacklevel=2,
            )
        roles = Roles.of(state.model, self.random, False)
        params, rest = eqx.partition(state.model, roles.random)
        unravel = ravel_pytree(params)[1]
        draws = jax.vmap(jax.vmap(unravel))(state.draws[:, :kept])
        return DrawsPosterior(draws, rest)

    def _log_density(self, model, vector, batch):
        roles = Roles.of(model, self.random, False)
        drawn = self._model(model, vector)
        params = eqx.filter(drawn, roles.random)
        return self.log_joint(drawn, batch, key=jax.random.key(0), params=params)

    def _model(self, model, vector):
        roles = Roles.of(model, self.random, False)
        params, rest = eqx.partition(eqx.nn.inference_mode(model), roles.random)
        return eqx.combine(ravel_pytree(params)[1](vector), rest)

    def _check_rows(self, batch):
        data, _ = unpack(batch)
        rows = num_rows(data)
        if rows < self.log_joint.num_data:
            raise ValueError(
                f"this batch has {rows} rows and num_data is "
                f"{self.log_joint.num_data}: the sampler needs the whole data set in "
                "each step, batch_size=len(x). For minibatches use SGLD."
            )
