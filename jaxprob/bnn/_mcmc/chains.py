"""Markov chains side by side: where they start, and which draws are kept."""

import abc
import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ... import tree
from ..._random.keys import example_keys
from ..._types import AbstractVar, Info, Model, PRNGKey, Where
from ...tree._ravel import ravel
from .._inference.capabilities import AbstractConditional
from .._inference.inference import Roles, check_state, random_or_point
from .._inference.members import AbstractMemberInference
from .._inference.refresh_statistics import refresh_statistics
from .._inference.training_batches import TrainingBatches
from .._joint.check_prior import check_prior
from .._joint.sample_prior import sample_prior
from .._posterior.draws import DrawsPosterior
from .._posterior.posterior import AbstractPosterior
from .._weights.learned_noise import LearnedNoise
from .._weights.running_statistics import statistics, trains_statistics
from .moved import check_moved


class ChainState(eqx.Module):
    """The state of all chains.

    **Fields:**

    - `position`: the random leaves of each chain, ravelled.
    - `kernel`: what a transition carries on beside it: a momentum; or step size and
        mass matrix while they adapt, and the log density and its gradient there.
    - `draws`: kept so far, a ring in which the oldest make room.
    - `divergences`: of each chain, after warm-up; zero for minibatch samplers.
    - `statistics`: running statistics of each chain's model (see `Stateful`).
    - `step`: transitions made.
    - `model`: gives the structure and the leaves that are not random.
    """

    position: Float[Array, "chains dim"]
    kernel: PyTree
    draws: Float[Array, "chains draws dim"]
    divergences: Int[Array, " chains"]
    statistics: PyTree
    step: Int[Array, ""]
    model: Model


class AbstractChains(AbstractMemberInference, AbstractConditional):
    """What all samplers share. A final class says how one transition goes.

    **Fields:**

    - `num_draws`, `num_chains`: kept of each chain; side by side in one program.
    - `random`: leaves to sample (see `jaxprob.tree`).
    - `initial`: where chains start: at draws from the `"prior"`, all at the `"model"`,
        or at a posterior: chain i at its model i, or at a draw of its own.
    - `refuses`: whether a transition may be refused, as one out of a prior's support.
    """

    refuses: ClassVar = True
    num_warmup: AbstractVar[int]
    num_draws: AbstractVar[int]
    thin: AbstractVar[int]
    num_chains: AbstractVar[int]
    random: AbstractVar[Where | None]
    initial: AbstractVar[Literal["prior", "model"] | AbstractPosterior]

    @abc.abstractmethod
    def num_kept(self, step: int | Int[Array, ""]) -> Int[Array, ""]:
        """How many draws of each chain so many updates have kept."""

    @property
    @abc.abstractmethod
    def num_steps(self) -> int:
        """Updates until all draws are kept."""

    @abc.abstractmethod
    def _kernel(self, position: Array, *, key: PRNGKey) -> PyTree:
        """What transitions carry on, for all chains, before the first."""

    def init(self, model: Model, *, key: PRNGKey) -> ChainState:
        roles = Roles.of(model, self.random, False)
        params = eqx.filter(model, roles.random)
        reach = None if self.refuses else "a chain whose steps are never refused"
        check_prior(self.log_joint.prior, params, reach=reach)
        start_key, kernel_key = jax.random.split(key)
        position = self._positions(model, roles, start_key)
        shape = (self.num_chains, self.num_draws, position.shape[1])
        return ChainState(
            position,
            kernel=self._kernel(position, key=kernel_key),
            draws=jnp.zeros(shape, position.dtype),
            divergences=jnp.zeros(self.num_chains, jnp.int32),
            statistics=jax.tree.map(
                lambda a: jnp.broadcast_to(a, (self.num_chains, *a.shape)),
                statistics(model),
            ),
            step=jnp.zeros((), jnp.int32),
            model=model,
        )

    @property
    def num_members(self) -> int:
        return self.num_chains

    def members_axis(self, state: ChainState) -> PyTree[bool]:
        axis = jax.tree.map(eqx.is_array, state)
        model = jax.tree.map(lambda _: False, axis.model)
        return eqx.tree_at(lambda s: (s.model, s.step), axis, (model, False))

    def restricted(self, where: Where) -> "AbstractChains":
        """Return the sampler of some leaves; the others stay as the model has them."""
        initial = "model" if self.initial == "prior" else self.initial
        settings: dict[str, Any] = {"random": where, "initial": initial}
        return dataclasses.replace(self, **settings)

    def infer(
        self, model: Model, data: PyTree, *, key: PRNGKey, num_steps: int
    ) -> DrawsPosterior:
        from .run_chains import run_chains  # which runs any subclass of this class

        _, run_key, _ = jax.random.split(key, 3)
        return run_chains(self, model, data, key=run_key, progress=False)

    def check_start(self, model: Model, data: PyTree) -> None:
        """Warn of a noise level that no chain would move."""
        if self.random is None:
            _warn_of_still_noise(model)

    def trained(self, model: Model) -> PyTree[bool]:
        return random_or_point(model, self.random, False)

    def evaluate(self, state: ChainState, batch: PyTree, *, key: PRNGKey) -> Info:
        """The mean over chains of the log-likelihood where they are."""

        def one(vector, held, key):
            model = eqx.nn.inference_mode(self._model(state.model, vector, held))
            return self.log_joint.log_likelihood(model, batch, key=key)

        keys = example_keys(key, self.num_chains)
        values = jax.vmap(one)(state.position, state.statistics, keys)
        nll = -jnp.mean(values) / self.log_joint.num_data
        return {"loss": nll, "nll": nll}

    def model(self, state: ChainState) -> Model:
        """The model where the first chain is: one draw."""
        held = jax.tree.map(lambda a: a[0], state.statistics)
        return self._model(state.model, state.position[0], held)

    def posterior(
        self,
        state: ChainState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> DrawsPosterior:
        """All draws kept so far, in the order in which they were made.

        For a model that trains running statistics (see `Stateful`), `batches` are the
        training data again: each draw gets its own statistics from them.

        **Raises:** `ValueError` while there is none, when draws are not finite, or when
        every transition of a chain diverged or was refused. Warns of divergences, and
        of chains that have hardly moved.
        """
        check_state(self, state, ChainState)
        kept = int(self.num_kept(int(state.step)))
        if kept == 0:
            first = next(
                step
                for step in range(self.num_warmup + 1, self.num_steps + 1)
                if int(self.num_kept(step))
            )
            raise ValueError(
                f"no draw yet: {int(state.step)} updates were made, and the first is "
                f"kept after {first}. Train for num_steps={self.num_steps}."
            )
        self._judge(state)
        length = state.draws.shape[1]
        draws = state.draws[:, :kept]
        if kept > length:
            draws = jnp.roll(draws, -(kept % length), axis=1)
        return self.as_posterior(state.model, draws, batches)

    def as_posterior(
        self,
        model: Model,
        draws: Float[Array | np.ndarray, "chains draws dim"],
        batches: Iterable[PyTree] | None = None,
    ) -> DrawsPosterior:
        """Ravelled draws as a posterior: `posterior` and `load_draws` call it."""
        params, rest = self._split(model)
        self._check_finite(params, draws)
        check_moved(np.asarray(draws))
        unravel = jax.vmap(jax.vmap(ravel(params)[1]))
        posterior = DrawsPosterior(unravel(jnp.asarray(draws)), rest)
        if not self._refreshes(model):
            return posterior
        if batches is None:
            raise ValueError(
                "this model keeps running statistics, and those of the chain's last "
                "step belong to no draw: give the training data again, "
                "posterior(state, batches), to compute each draw's own"
            )
        return refresh_statistics(posterior, TrainingBatches(self, model, batches))

    def _judge(self, state):
        """Looks at the state before its draws are used."""

    def _refreshes(self, model) -> bool:
        """Whether the draws need running statistics of their own."""
        return trains_statistics(model)

    def _record(self, state, position):
        """The buffer with the position in it, if this step is one to keep."""
        length = state.draws.shape[1]
        before = self.num_kept(state.step)
        due = self.num_kept(state.step + 1) > before
        place = before % length
        # A choice of the rows, not of the buffer: that would copy it in every step.
        rows = jnp.where(due, position, state.draws[:, place])
        return state.draws.at[:, place].set(rows)

    def _split(self, model):
        return eqx.partition(model, Roles.of(model, self.random, False).random)

    def _model(self, model, vector, held):
        params, rest = self._split(model)
        if held is not None:
            rest = eqx.combine(held, rest)
        return eqx.combine(ravel(params)[1](vector), rest)

    def _positions(self, model, roles, key):
        template = ravel(eqx.filter(model, roles.random))[0]

        def start(index, key):
            if isinstance(self.initial, AbstractPosterior):
                atoms = self.initial.num_atoms
                if atoms is None:
                    drawn = self.initial.sample(key=key)
                else:
                    drawn = self.initial.atom(index % atoms)
            elif self.initial == "model":
                return template
            else:
                prior = self.log_joint.prior
                drawn = sample_prior(model, prior, key=key, where=roles.random)
            return ravel(eqx.filter(drawn, roles.random))[0]

        initial = self.initial
        if isinstance(initial, AbstractPosterior) and (
            _layout(eqx.filter_eval_shape(initial.mean)) != _layout(model)
        ):
            raise ValueError(
                "initial is a posterior over another model than the one given: their "
                "classes, settings or shapes differ"
            )
        index = jnp.arange(self.num_chains)
        return jax.vmap(start)(index, example_keys(key, self.num_chains))

    def _check_finite(self, params, draws):
        bad = ~np.isfinite(np.asarray(draws))
        if not bad.any():
            return
        chain, draw, place = (int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"draw {draw} of chain {chain} is not finite at {leaf_at(params, place)}: "
            "the chain left for infinity. Lower the learning rate or the step size."
        )


def _warn_of_still_noise(model):
    nodes = jax.tree.leaves(model, is_leaf=lambda node: isinstance(node, LearnedNoise))
    for node in nodes:
        if isinstance(node, LearnedNoise):
            warnings.warn(
                "a chain moves random leaves alone, and the noise of LearnedNoise is "
                f"none by default: it stays at {_short(node.scale)}. Write "
                "random=True to sample it too, under the prior of the other leaves; "
                "or, if it was trained before, random=... with the leaves to sample",
                stacklevel=4,
            )


def _short(array):
    return np.array2string(np.asarray(array), precision=3)


def _layout(model):
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(model) if _is_array(leaf)]
    return jax.tree.structure(model), shapes


def _is_array(leaf):
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def leaf_at(params: PyTree, place: int) -> str:
    """The path of the leaf that holds an entry of the ravelled tree."""
    end = 0
    for path, leaf in tree.paths(params).items():
        end += leaf.size
        if place < end:
            return path
    raise IndexError(f"the tree holds {end} numbers, and {place} was asked for")


def check_chains(method: AbstractChains, **least: int) -> None:
    """Refuses settings below their least, and a start that is none."""
    for name, smallest in least.items():
        if getattr(method, name) < smallest:
            raise ValueError(
                f"{name}={getattr(method, name)}: it is at least {smallest}"
            )
    initial = method.initial
    if not isinstance(initial, AbstractPosterior) and initial not in (
        "prior",
        "model",
    ):
        raise ValueError(
            f"initial={initial!r}: it is 'prior', 'model' or a posterior, such as an "
            "ensemble's"
        )
