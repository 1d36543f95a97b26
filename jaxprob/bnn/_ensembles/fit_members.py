"""Members of an ensemble that train apart, in processes or by an executor."""

from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PyTree
from tqdm.auto import tqdm

from ..._engine.fit import History, fit
from ..._engine.jobs import Executor, run_jobs
from ..._random.keys import check_key, example_keys
from ..._training.capabilities import (
    AbstractGradient,
    AbstractMembers,
    AbstractSequentialMembers,
)
from ..._training.wrapper import ForwardedGradient, Rejected, Withheld
from ..._types import Info, Model, PRNGKey, State
from .._inference.capabilities import (
    AbstractConditional,
    AbstractTrainedModels,
    replaced,
)
from .._inference.inference import AbstractInference
from .._inference.wrapper import AbstractWrapper
from .._posterior.posterior import AbstractPosterior
from .deep_ensemble import DeepEnsemble
from .stacked import take


def fit_members(
    ensemble: AbstractInference,
    model: Model,
    data: PyTree | Iterable[PyTree],
    *,
    key: PRNGKey,
    executor: Executor | None = None,
    num_processes: int | None = None,
    progress: bool = True,
    **settings: Any,
) -> tuple[State, History]:
    """Train the members of an ensemble apart, each as one job.

    ```python
    ensemble = DeepEnsemble(MAP(log_joint, optax.adam(1e-3)), num_members=2)
    run = dict(key=key, num_epochs=100, executor=executor)
    state, history = fit_members(ensemble, model, (x, y), **run)
    posterior = ensemble.posterior(state)
    ```

    It is for members that are large, or machines that are several: small networks train
    faster side by side in one program, by `jaxprob.fit`. The result is that of
    `jaxprob.fit` with `members="loop"` and the same key, bit for bit on like machines,
    whatever the number of workers.

    **Arguments:**

    - `ensemble`: a `DeepEnsemble`; its setting `members` does not matter here.
    - `model`, `data`, `key`: as in `jaxprob.fit`. Data travel with each job.
    - `executor`, `num_processes`: as in `jaxprob.run_jobs`; by default processes of
        this machine.
    - `progress`: whether to show a bar of members on standard error.
    - `settings`: further arguments of `jaxprob.fit`: `num_steps` or `num_epochs`,
        `batch_size`, `validation`, `steps_per_dispatch`.

    **Returns:** `(state, history)`, a state of `ensemble` and the means over members.

    **Raises:** those of `jaxprob.fit` and `jaxprob.run_jobs`, with the member.
    `TypeError` for another method, or for arguments that a member cannot have.
    """
    if not isinstance(ensemble, DeepEnsemble):
        raise TypeError(
            f"ensemble is a {type(ensemble).__name__}: members train apart for "
            "DeepEnsemble(method, num_members=...), with wrappers inside of it"
        )
    check_key(key)
    for name in ("state", "step", "reset", "layout"):
        if name in settings:
            raise TypeError(
                f"{name}= is not for members that train apart: jaxprob.fit takes it"
            )
    run = {**settings, "progress": False}
    ensemble = replaced(ensemble, members="loop")
    data = jax.tree.map(_on_host, data)
    model = jax.tree.map(_on_host, model)
    jobs = {
        f"member {i}": (ensemble, i, model, data, key, run)
        for i in range(ensemble.num_members)
    }
    results = {}
    with tqdm(total=len(jobs), unit="member", disable=not progress) as bar:
        for name, result in run_jobs(
            _train, jobs, executor=executor, num_processes=num_processes
        ):
            results[name] = result
            bar.update(1)
    states, histories = zip(*(results[name] for name in jobs), strict=True)
    template = eqx.filter_eval_shape(ensemble.init, model, key=key)
    rest = eqx.filter(template, lambda a: not isinstance(a, jax.ShapeDtypeStruct))
    arrays = jax.tree.map(lambda *a: jnp.asarray(np.stack(a)), *states)
    history = [_mean(entries) for entries in zip(*histories, strict=True)]
    return eqx.combine(arrays, rest), history


def _train(ensemble, index, model, data, key, settings):
    """The arrays of one member's state after training, and its history."""
    member = OneMember(ensemble, index)
    state, history = fit(member, model, data, key=key, **settings)
    return jax.tree.map(np.asarray, eqx.filter(state.state, eqx.is_array)), history


def _on_host(leaf):
    is_plain = isinstance(leaf, jax.Array) and not jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )
    return np.asarray(leaf) if is_plain else leaf


def _mean(entries):
    return {name: float(np.mean([e[name] for e in entries])) for name in entries[0]}


class MemberState(eqx.Module):
    """State of one member, and its number."""

    state: State
    index: Int[Array, ""]


class OneMember(AbstractWrapper):
    """One member of an ensemble as a method, with the steps that it makes there.

    The number of the member is in the state: all members share one program.

    **Arguments:**

    - `ensemble`: of which it is a member.
    - `index`: its number.
    """

    forwards: ClassVar = {
        AbstractGradient: ForwardedGradient,
        AbstractMembers: Rejected("members of members do not train apart"),
        AbstractSequentialMembers: Rejected("members of members do not train apart"),
        AbstractTrainedModels: Withheld("it is one member of an ensemble"),
        AbstractConditional: Withheld("it is one member of an ensemble"),
    }
    method: AbstractInference
    ensemble: DeepEnsemble
    index: int = eqx.field(static=True)

    def __init__(self, ensemble: DeepEnsemble, index: int):
        self.method = ensemble.method
        self.ensemble = ensemble
        self.index = index

    def check_start(self, model: Model, data: PyTree) -> None:
        if self.index == 0:
            self.ensemble.check_start(model, data)

    def init(self, model: Model, *, key: PRNGKey) -> MemberState:
        state = take(self.ensemble.init(model, key=key), self.index)
        return MemberState(state, jnp.asarray(self.index, jnp.int32))

    def update(
        self, state: MemberState, batch: PyTree, *, key: PRNGKey
    ) -> tuple[MemberState, Info]:
        after, info = self.ensemble.update_member(
            state.state, batch, key=key, index=state.index
        )
        return MemberState(after, state.index), info

    def inner_state(self, state: MemberState) -> State:
        return state.state

    def evaluate(self, state: MemberState, batch: PyTree, *, key: PRNGKey) -> Info:
        keys = example_keys(key, self.ensemble.num_members)
        return self.method.evaluate(state.state, batch, key=keys[state.index])

    def model(self, state: MemberState) -> Model:
        return self.method.model(state.state)

    def posterior(
        self,
        state: MemberState,
        batches: Iterable[PyTree] | None = None,
        *,
        key: PRNGKey | None = None,
    ) -> AbstractPosterior:
        return self.method.posterior(state.state, batches, key=key)
