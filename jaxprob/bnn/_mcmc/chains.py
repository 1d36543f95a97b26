"""Markov chains side by side: the part that all samplers share."""

import abc
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._random.keys import example_keys
from ..._types import Info, Model, PRNGKey, Where
from .._inference.capabilities import AbstractConditional, replaced
from .._inference.inference import Roles, check_state, random_or_point
from .._inference.members import AbstractMemberInference
from .._inference.refresh_statistics import refresh_statistics
from .._inference.training_batches import TrainingBatches
from .._joint.check_prior import check_prior
from .._joint.unconstrain import unconstrained
from .._posterior.draws import DrawsPosterior
from .._weights.running_statistics import statistics, trains_statistics
from .._weights.unconstrained import constrained
from .check_draws import check_draws, check_num_divergences
from .initial import Initial, check_initial, initial_positions, warn_of_fixed_noise
from .kept_draws import KeptDraws
from .ring_buffer import in_order, put
from .undeclared_edge import undeclared_edge
from .weight_vector import WeightVector

if TYPE_CHECKING:  # see _training/capabilities.py
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractVar


class ChainState(eqx.Module):
    """The state of all chains.

    **Fields:**

    - `position`: the random leaves of each chain, ravelled.
    - `kernel`: what a transition needs beside the position: a momentum; or the state of
        the warm-up, and the log density and its gradient at the position.
    - `draws`: a ring buffer in which new draws replace the oldest.
    - `divergences`: of each chain, after warm-up; zero for minibatch samplers.
    - `statistics`: running statistics of each chain's model (see `Stateful`).
    - `step`: transitions made.
    - `model`: gives the structure and the leaves that are not random.
    - `sample_stats`: statistics of the transitions that ended in the draws, by name,
        in ring buffers like that of the draws.
    """

    position: Float[Array, "chains dim"]
    kernel: PyTree
    draws: Float[Array, "chains draws dim"]
    divergences: Int[Array, " chains"]
    statistics: PyTree
    step: Int[Array, ""]
    model: Model
    sample_stats: dict[str, Float[Array, "chains draws"]] = eqx.field(
        default_factory=dict
    )


class AbstractChains(AbstractMemberInference, AbstractConditional):
    """Base class of samplers. A final class says how one transition is made.

    **Fields:**

    - `num_warmup`: updates before the first draw may be kept.
    - `num_draws`: draws kept of each chain.
    - `thin`: updates for each kept draw.
    - `num_chains`: chains side by side in one program.
    - `random`: leaves to sample (see `jaxprob.tree`).
    - `initial`: where chains start: at draws from the `"prior"`, all at the `"model"`,
        at modes (`"map"`, see `MultiStart`), or at a posterior: chain i at its model i,
        or at a draw from it.
    """

    num_warmup: AbstractVar[int]
    num_draws: AbstractVar[int]
    thin: AbstractVar[int]
    num_chains: AbstractVar[int]
    random: AbstractVar[Where | None]
    initial: AbstractVar[Initial]

    def __check_init__(self):
        check_least(self, num_warmup=0, num_draws=1, thin=1, num_chains=1)
        check_initial(self.initial)

    @property
    @abc.abstractmethod
    def schedule(self) -> KeptDraws:
        """The updates whose positions are kept."""

    @abc.abstractmethod
    def init_kernel(
        self, position: Float[Array, "chains dim"], *, key: PRNGKey
    ) -> PyTree:
        """Return `ChainState.kernel` of all chains before the first transition."""

    @property
    @abc.abstractmethod
    def remedy(self) -> str:
        """A sentence for error messages: what to change where a chain diverges."""

    @property
    def stats_names(self) -> tuple[str, ...]:
        """Names of what `record` stores of each transition with a draw."""
        return ()

    @property
    def num_steps(self) -> int:
        """Updates until all draws are kept."""
        return self.schedule.num_steps

    def init(self, model: Model, *, key: PRNGKey) -> ChainState:
        Roles.of(model, self.random, False)
        model = self.unconstrained(model)
        leaves = WeightVector.of(model, self.random)
        check_prior(self.log_joint.prior, leaves.params)
        start_key, kernel_key = jax.random.split(key)
        position = initial_positions(
            model,
            self.random,
            self.initial,
            prior=self.log_joint.prior,
            num_chains=self.num_chains,
            key=start_key,
        )
        shape = (self.num_chains, self.num_draws, position.shape[1])
        return ChainState(
            position,
            kernel=self.init_kernel(position, key=kernel_key),
            draws=jnp.zeros(shape, position.dtype),
            divergences=jnp.zeros(self.num_chains, jnp.int32),
            statistics=jax.tree.map(
                lambda a: jnp.broadcast_to(a, (self.num_chains, *a.shape)),
                statistics(model),
            ),
            step=jnp.zeros((), jnp.int32),
            model=model,
            sample_stats={
                name: jnp.zeros(shape[:2], position.dtype) for name in self.stats_names
            },
        )

    @property
    def num_members(self) -> int:
        return self.num_chains

    def members_axis(self, state: ChainState) -> PyTree[bool]:
        return _axis(state)

    def restricted(self, where: Where) -> "AbstractChains":
        initial = "model" if self.initial == "prior" else self.initial
        return replaced(self, random=where, initial=initial)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> DrawsPosterior:
        from .run_chains import run_chains  # which runs any subclass of this class

        run_key = jax.random.split(key, 3)[1]
        return run_chains(self, model, data, key=run_key, progress=False)

    def check_start(self, model: Model, data: PyTree) -> None:
        """Warn of a noise level that no chain would move."""
        if self.random is None:
            warn_of_fixed_noise(model)

    def trained(self, model: Model) -> PyTree[bool]:
        return random_or_point(model, self.random, False)

    def unconstrained(self, model: Model) -> Model:
        return unconstrained(model, self.log_joint.prior, self.random)

    def evaluate(self, state: ChainState, batch: PyTree, *, key: PRNGKey) -> Info:
        """Return the mean over chains of the negative log-likelihood per row."""
        leaves = WeightVector.of(state.model, self.random)

        def one(vector, statistics, key):
            model = eqx.nn.inference_mode(
                leaves.model(leaves.unravel(vector), statistics)
            )
            return self.log_joint.log_likelihood(model, batch, key=key)

        keys = example_keys(key, self.num_chains)
        values = jax.vmap(one)(state.position, state.statistics, keys)
        nll = -jnp.mean(values) / self.log_joint.num_data
        return {"loss": nll, "nll": nll}

    def log_density(
        self, model: Model, vector: Float[Array, " dim"], data: PyTree
    ) -> Float[Array, ""]:
        """Return the log joint of a whole data set at ravelled random leaves.

        It is a density of their coordinates: `model` is that of a state, in which
        leaves whose prior has an edge are in unconstrained ones.
        The model is in inference mode: dropout is off and running statistics are
        constants.
        """
        leaves = WeightVector.of(eqx.nn.inference_mode(model), self.random)
        params = leaves.unravel(vector)
        model = leaves.model(params)
        return self.log_joint(model, data, key=jax.random.key(0), params=params)

    def model(self, state: ChainState) -> Model:
        """Return the model at the first chain's position: one draw."""
        first = jax.tree.map(lambda a: a[0], state.statistics)
        leaves = WeightVector.of(state.model, self.random)
        return constrained(leaves.model(leaves.unravel(state.position[0]), first))

    def posterior(
        self,
        state: ChainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> DrawsPosterior:
        """Return all draws kept so far, in the order in which they were made.

        For a model that trains running statistics (see `Stateful`), `batches` are the
        training data again: the statistics of each draw are computed from them.

        **Raises:** `ValueError` before the first draw, when draws are not finite, or
        when every transition of a chain diverged or was rejected. Warns of divergences,
        and of chains that have hardly moved.
        """
        check_state(self, state, ChainState)
        num_kept = int(self.schedule.num_kept(int(state.step)))
        if num_kept == 0:
            raise ValueError(
                f"no draw yet: {int(state.step)} updates were made, and the first is "
                f"kept after {self.schedule.first}. Train for "
                f"num_steps={self.num_steps}."
            )
        check_divergences(self, state)
        rings = state.draws, state.sample_stats
        draws, stats = jax.tree.map(lambda ring: in_order(ring, num_kept), rings)
        return self.as_posterior(state.model, draws, batches, sample_stats=stats)

    def as_posterior(
        self,
        model: Model,
        draws: Float[Array | np.ndarray, "chains draws dim"],
        batches: Iterable[PyTree] | None = None,
        *,
        sample_stats: Mapping[str, Array | np.ndarray] | None = None,
    ) -> DrawsPosterior:
        """Return ravelled draws as a posterior; `posterior` and `load_draws` use it."""
        leaves = WeightVector.of(self.unconstrained(model), self.random)
        check_draws(np.asarray(draws), leaves, self.remedy)
        values = jax.vmap(jax.vmap(lambda v: constrained(leaves.unravel(v))))
        posterior = DrawsPosterior(
            values(jnp.asarray(draws)),
            constrained(leaves.rest),
            {name: jnp.asarray(a) for name, a in (sample_stats or {}).items()},
        )
        if not self.trains_statistics(model):
            return posterior
        if batches is None:
            raise ValueError(
                "this model keeps running statistics, and those of the chain's last "
                "step belong to no draw: give the training data again, "
                "posterior(state, batches), to compute those of each draw"
            )
        return refresh_statistics(posterior, TrainingBatches(self, model, batches))

    def needs_batches(self, model: Model) -> bool:
        return self.trains_statistics(model)

    def trains_statistics(self, model: Model) -> bool:
        """Return whether transitions move running statistics, so that each draw needs
        its statistics computed again.
        """
        return trains_statistics(model)


def check_divergences(method: AbstractChains, state: ChainState) -> None:
    """Raise `ValueError` for a chain that always diverged; warn of divergences."""
    num_transitions = int(state.step) - method.num_warmup
    divergences, remedy = np.asarray(state.divergences), method.remedy
    if divergences.any():
        num_kept = int(method.schedule.num_kept(int(state.step)))
        draws = in_order(state.draws, num_kept) if num_kept else state.position
        edge = undeclared_edge(
            method.log_joint.prior,
            WeightVector.of(state.model, method.random).params,
            draws.reshape(-1, draws.shape[-1]),
        )
        remedy = edge or remedy
    check_num_divergences(divergences, num_transitions, remedy)


def record(
    method: AbstractChains,
    state: ChainState,
    position: Float[Array, "chains dim"],
    stats: Mapping[str, Float[Array, " chains"]],
) -> tuple[Float[Array, "chains draws dim"], dict[str, Float[Array, "chains draws"]]]:
    """Return the ring buffers of draws and of statistics after a transition.

    **Arguments:**

    - `method`: of the chains.
    - `state`: before the transition.
    - `position`: after it.
    - `stats`: of the transition; those of `AbstractChains.stats_names` are recorded.
    """
    rings = state.draws, state.sample_stats
    values = position, {name: stats[name] for name in state.sample_stats}
    schedule, step = method.schedule, state.step
    return jax.tree.map(lambda *a: put(*a, schedule=schedule, step=step), rings, values)


def check_least(method: eqx.Module, **least: int) -> None:
    """Raise `ValueError` for settings that are smaller than their least values."""
    for name, smallest in least.items():
        value = getattr(method, name)
        if value < smallest:
            raise ValueError(f"{name}={value}: it is at least {smallest}")


def _axis(state):
    """True at arrays with an axis of chains: all but the model and the step."""
    axis = jax.tree.map(eqx.is_array, state)
    model = jax.tree.map(lambda _: False, axis.model)
    return eqx.tree_at(lambda s: (s.model, s.step), axis, (model, False))
