"""Ensembles of any inference method, trained as one program."""

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, PyTree

from ..._random.keys import check_key, example_keys
from ..._training.capabilities import AbstractGradient, AbstractSequentialMembers
from ..._training.learner import Capability
from ..._training.wrapper import Withheld
from ..._types import Info, Model, PRNGKey, State
from .._inference.capabilities import AbstractConditional, AbstractTrainedModels
from .._inference.inference import AbstractInference
from .._inference.members import AbstractMemberInference
from .._inference.training_batches import as_iterable
from .._inference.wrapper import AbstractWrapper
from .._joint.xy import xy
from .._posterior.posterior import AbstractPosterior
from .._weights.scale import is_traced
from .shuffled import shuffled
from .trained_start import looks_trained


class EnsemblePosterior(AbstractPosterior):
    """Posteriors of one kind with equal weights: members of an ensemble, draws of a
    chain, or a mixture of variational fits.

    **Arguments:**

    - `stack`: one posterior whose arrays have a leading axis of members.
    - `num_members`: its length.
    """

    stack: AbstractPosterior
    num_members: int = eqx.field(static=True)

    def member(self, index: int | Integer[Array, ""]) -> AbstractPosterior:
        """The posterior of one member."""
        return take(self.stack, index)

    @property
    def linearized(self) -> bool:
        return self.stack.linearized

    def linearisation_point(self, *, key: PRNGKey) -> tuple[Model, Model]:
        """A draw and the mean of its member."""
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, self.num_members)
        return self.member(index).linearisation_point(key=sample_key)

    def factorised(self) -> "EnsemblePosterior":
        if type(self.stack).factorised is AbstractPosterior.factorised:
            return self  # nothing to compute, and no copy of all members
        each = eqx.filter_vmap(lambda member: member.factorised())(self.stack)
        return EnsemblePosterior(each, self.num_members)

    def sample(self, *, key: PRNGKey) -> Model:
        """A member at random, then a draw from it."""
        check_key(key)
        index_key, sample_key = jax.random.split(key)
        index = jax.random.randint(index_key, (), 0, self.num_members)
        return self.member(index).sample(key=sample_key)

    def mean(self) -> Model:
        """The average of all weights. Members that found different modes have no model
        between them: average their predictions, which is what `predict` does.
        """
        means = eqx.filter_vmap(lambda i: self.member(i).mean())(
            jnp.arange(self.num_members)
        )
        return jax.tree.map(
            lambda a: jnp.mean(a, 0) if eqx.is_inexact_array(a) else _first(a), means
        )

    def log_prob(self, model: Model) -> Float[Array, ""]:
        terms = jax.vmap(lambda i: self.member(i).log_prob(model))(
            jnp.arange(self.num_members)
        )
        return jax.nn.logsumexp(terms) - jnp.log(float(self.num_members))

    @property
    def num_atoms(self) -> int | None:
        inner = self.member(0).num_atoms
        return None if inner is None else inner * self.num_members

    def atom(self, index: int | Integer[Array, ""]) -> Model:
        inner = self.member(0).num_atoms
        if inner is None:
            raise NotImplementedError("members with a density have no finite support")
        return self.member(index // inner).atom(index % inner)


class MemberGradients(AbstractGradient):
    """Gradient of each member of an ensemble, along a leading axis."""

    ensemble: Any
    inner: AbstractGradient

    def gradient(self, state: State, batch: PyTree, *, key: PRNGKey) -> PyTree:
        def one(state, key):
            return self.inner.gradient(state, batch, key=key)

        keys = example_keys(key, self.ensemble.num_members)
        return self.ensemble.each(one, state, keys)


class MemberModels(AbstractTrainedModels):
    """Trained models of all members of an ensemble."""

    ensemble: Any
    inner: AbstractTrainedModels

    def models(self, state: State) -> tuple[Model, ...]:
        members = range(self.ensemble.num_members)
        states = [self.ensemble.member(state, index) for index in members]
        return tuple(m for state in states for m in self.inner.models(state))


class DeepEnsemble(AbstractWrapper, AbstractMemberInference, AbstractSequentialMembers):
    r"""Several models from different starts; the posterior is their uniform mixture.

    $$p(y \mid x) \approx \frac 1 M \sum_m p(y \mid f_{w_m}(x))$$

    The members train side by side in one vectorised program, on the same batches. Any
    method may be repeated so: `DeepEnsemble(MeanFieldVI(...), 5)` is a mixture of
    variational posteriors, `DeepEnsemble(AnchoredMAP(...), 50)` an ensemble whose
    members are posterior draws where the model is linear.

    Reference: *Simple and scalable predictive uncertainty estimation using deep
    ensembles*, Lakshminarayanan, Pritzel and Blundell, 2017,
    https://arxiv.org/abs/1612.01474.

    ```python
    method = DeepEnsemble(MAP(log_joint, optax.adam(1e-3)), num_members=10)
    state, history = jaxprob.fit(method, model, (x, y), key=key, num_epochs=100)
    predictive = predict(method.posterior(state), log_joint.likelihood, x, key=key)
    ```

    **Arguments:**

    - `method`: how each member is trained.
    - `num_members`: M.
    - `make`: the start of a member. `"shuffled"`, the default: the entries of each
        array that is trained are shuffled, a new draw of whatever independent
        initialisation it had; constants and frozen arrays stay as they are. That
        destroys a trained model, so a warning is raised where the model given seems to
        be one. `"model"`: each starts at the model given, and only what is random in
        the method makes members differ. Or a function `make(key) -> model`.
    - `members`: `"vmap"`, or `"loop"` for one after the other: `fit`, `Stepper` and
        Lightning then run, for each member in turn, the program that would train it
        alone. It gives those bits; it takes longer for small models, and less for
        convolutions on a CPU, which are slow where members have weights of their own.
    """

    forwards: ClassVar = {
        AbstractGradient: MemberGradients,
        AbstractTrainedModels: MemberModels,
        AbstractConditional: Withheld(
            "its members start anew; write DeepEnsemble(Blocks(...), num_members)"
        ),
    }
    method: AbstractInference
    num_members: int
    _: KW_ONLY
    make: Callable[[PRNGKey], Model] | Literal["shuffled", "model"] | None = None
    members: Literal["vmap", "loop"] = "vmap"

    def __check_init__(self):
        whole = isinstance(self.num_members, int | np.integer)
        if not whole or self.num_members < 1:
            raise ValueError(f"num_members={self.num_members}: at least one is needed")
        if not callable(self.make) and self.make not in (None, "shuffled", "model"):
            raise ValueError(
                f"make={self.make!r}: it is 'shuffled', 'model' or a function of a key "
                "that returns a model"
            )
        if self.members not in ("vmap", "loop"):
            raise ValueError(f"members={self.members!r}: it is 'vmap' or 'loop'")

    def capability(self, kind: type[Capability]) -> Capability | None:
        """Return as of any wrapper; members are sequential with `members="loop"`."""
        if kind is AbstractSequentialMembers and self.members != "loop":
            return None
        return super().capability(kind)

    def check_start(self, model: Model, data: PyTree) -> None:
        """Warn of a trained model that would be shuffled."""
        if self.make is not None or self.num_members == 1:
            return
        if looks_trained(self.log_joint, model, self.trained(model), xy(data)):
            warnings.warn(
                "the model predicts these data better than shuffles of its weights do, "
                "so it seems to be trained, and DeepEnsemble shuffles the "
                "weights to give each member a start. To go on from the trained "
                "weights write DeepEnsemble(..., make='model'); to shuffle them all "
                "the same, make='shuffled'",
                stacklevel=5,
            )

    def init(self, model: Model, *, key: PRNGKey) -> State:
        """All members' states, stacked along a leading axis."""
        check_key(key)
        if callable(self.make):
            make = self.make
        elif self.make == "model":
            make = functools.partial(_given, model)
        else:
            make = shuffled(model, self.trained(model))

        def one(key):
            start_key, init_key = jax.random.split(key)
            return self.method.init(make(start_key), key=init_key)

        # The method's checks of values run here, outside of vmap. The key is that of no
        # member.
        self.method.init(model, key=jax.random.fold_in(key, self.num_members))
        return self.each(one, example_keys(key, self.num_members))

    def update_members(
        self, state: State, batch: PyTree, *, key: PRNGKey
    ) -> tuple[State, dict[str, Float[Array, " members"]]]:
        def one(state, key):
            return self.method.update(state, batch, key=key)

        return self.each(one, state, example_keys(key, self.num_members))

    def members_axis(self, state: State) -> PyTree[bool]:
        return jax.tree.map(eqx.is_array, state)

    def update_member(
        self, state: State, batch: PyTree, *, key: PRNGKey, index: Integer[Array, ""]
    ) -> tuple[State, Info]:
        key = jax.random.fold_in(key, index)
        return self.method.update(state, batch, key=key)

    def evaluate(self, state: State, batch: PyTree, *, key: PRNGKey) -> Info:
        """Means over the members: of each one's loss, not the loss of the mixture."""

        def one(state, key):
            return self.method.evaluate(state, batch, key=key)

        info = self.each(one, state, example_keys(key, self.num_members))
        return {name: jnp.mean(value, 0) for name, value in info.items()}

    def member(self, state: State, index: int) -> State:
        """The state of one member, as `method` knows it."""
        num = self.num_members
        arrays = jax.tree.leaves(eqx.filter(state, eqx.is_array))
        if not arrays or any(a.shape[:1] != (num,) for a in arrays):
            raise ValueError(
                f"state is a {type(state).__name__} whose arrays have no leading axis "
                f"of {num} members: give the state that jaxprob.fit returns for this "
                "DeepEnsemble"
            )
        return take(state, index)

    def model(self, state: State) -> Model:
        """The first member: one model of the ensemble, not the ensemble."""
        return self.method.model(self.member(state, 0))

    def posterior(
        self,
        state: State,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> EnsemblePosterior:
        batches = None if batches is None else list(as_iterable(batches))
        keys = [None] * self.num_members
        if key is not None:
            keys = list(example_keys(key, self.num_members))
        each = [
            self.method.posterior(self.member(state, i), batches, key=k)
            for i, k in enumerate(keys)
        ]
        stacked = stack(each)
        if self.num_members > 1 and _all_equal(stacked):
            warnings.warn(
                f"the {self.num_members} members are equal to the bit, so the ensemble "
                "is one model. They started from the same weights, and nothing in the "
                "method is random: give make=lambda key: Network(key=key)",
                stacklevel=2,
            )
        return EnsemblePosterior(stacked, self.num_members)

    def each(self, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """Return the results of a function for each member, along a leading axis."""
        if self.members == "vmap":
            return eqx.filter_vmap(function)(*args)
        # What is no array has no place in a loop's output, so it comes from outside.
        rest = eqx.filter(
            eqx.filter_eval_shape(function, *take(args, 0)),
            lambda leaf: not isinstance(leaf, jax.ShapeDtypeStruct),
        )
        arrays, static = eqx.partition(args, eqx.is_array)

        def one(arrays):
            return eqx.filter(function(*eqx.combine(arrays, static)), eqx.is_array)

        return eqx.combine(jax.lax.map(one, arrays), rest)


def take(tree: PyTree, index: int | Integer[Array, ""]) -> PyTree:
    """The part of every array at one place of its leading axis."""
    return jax.tree.map(lambda a: a[index] if eqx.is_array(a) else a, tree)


def stack(trees: list[PyTree]) -> PyTree:
    """Trees of one structure as one, arrays stacked along a new leading axis."""
    arrays, rest = zip(*(eqx.partition(t, eqx.is_array) for t in trees), strict=True)
    return eqx.combine(jax.tree.map(lambda *a: jnp.stack(a), *arrays), rest[0])


def _all_equal(stacked):
    """Whether each array is the same for all members, where it can be looked at."""
    arrays = jax.tree.leaves(eqx.filter(stacked, eqx.is_inexact_array))
    if any(map(is_traced, arrays)):
        return False
    return all(bool(jnp.all(a == a[:1])) for a in arrays)


def _given(model, key):
    return model


def _first(leaf):
    return leaf[0] if eqx.is_array(leaf) else leaf
