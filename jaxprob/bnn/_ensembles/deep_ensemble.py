"""Ensembles of any inference method, trained as one program."""

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from typing import ClassVar, Literal

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
from .._joint.row import as_row
from .._weights.scale import is_traced
from .ensemble_posterior import EnsemblePosterior
from .member_capabilities import MemberGradients, MemberModels
from .shuffled import shuffled
from .stacked import one_by_one, stack, take
from .trained_start import looks_trained


class DeepEnsemble(AbstractWrapper, AbstractMemberInference, AbstractSequentialMembers):
    r"""Several models from different starts; the posterior is their uniform mixture.

    $$p(y \mid x) \approx \frac 1 M \sum_m p(y \mid f_{w_m}(x))$$

    The members train side by side in one vectorised program, on the same batches. Any
    method can be repeated: `DeepEnsemble(MeanFieldVI(...), 5)` is a mixture of
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

    - `method`: trains each member.
    - `num_members`: M.
    - `make`: the model with which a member starts. `"shuffled"`, the default: the
        entries of each trained array are shuffled, which is a new draw of any
        independent initialisation; constants and frozen arrays stay as they are. That
        destroys a trained model, so a warning is raised where the model seems to be
        trained. `"model"`: all start at the model given, and members differ only by
        what is random in the method. Or a function `make(key) -> model`.
    - `members`: `"vmap"`, or `"loop"` for one after the other: `fit`, `Stepper` and
        Lightning then run the program that would train a member alone, for one member
        after the other, to the same bits. That is slower for small models, and faster
        for convolutions on a CPU, which are slow where weights differ by member.
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
        free = self.unconstrained(model)
        if looks_trained(self.log_joint, free, self.trained(free), as_row(data)):
            warnings.warn(
                "the model predicts these data better than shuffles of its weights do, "
                "so it seems to be trained, and DeepEnsemble shuffles the "
                "weights to give each member a start. To go on from the trained "
                "weights write DeepEnsemble(..., make='model'); to shuffle them all "
                "the same, make='shuffled'",
                stacklevel=5,
            )

    def init(self, model: Model, *, key: PRNGKey) -> State:
        """Return the states of all members, stacked along a leading axis."""
        check_key(key)
        if callable(self.make):
            make = self.make
        elif self.make == "model":
            make = functools.partial(_given, model)
        else:
            # Shuffled coordinates are in the support, and shuffled values may not be.
            free = self.unconstrained(model)
            make = shuffled(free, self.trained(free))

        def one(key):
            start_key, init_key = jax.random.split(key)
            return self.method.init(make(start_key), key=init_key)

        # Checks of values in the method run here, outside of vmap, with a key that no
        # member has.
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
        """Return means over the members: the mean loss, not the loss of the mixture."""

        def one(state, key):
            return self.method.evaluate(state, batch, key=key)

        info = self.each(one, state, example_keys(key, self.num_members))
        return {name: jnp.mean(value, 0) for name, value in info.items()}

    def member(self, state: State, index: int) -> State:
        """Return the state of one member, which is a state of `method`."""
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
        """Return the model of the first member."""
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
                "method is random: write make=lambda key: Network(key=key)",
                stacklevel=2,
            )
        return EnsemblePosterior(stacked, self.num_members)

    def each(self, function: Callable[..., PyTree], *args: PyTree) -> PyTree:
        """Return the results of a function for each member, along a leading axis."""
        if self.members == "vmap":
            return eqx.filter_vmap(function)(*args)
        return one_by_one(function, *args)


def _all_equal(stacked):
    """Test that each array is the same for all members; `False` for traced ones."""
    arrays = jax.tree.leaves(eqx.filter(stacked, eqx.is_inexact_array))
    if any(map(is_traced, arrays)):
        return False
    return all(bool(jnp.all(a == a[:1])) for a in arrays)


def _given(model, key):
    return model
