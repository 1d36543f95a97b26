"""The run of a module: a learner's live state, from one `fit` to the next."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._checks import path_name
from ..._engine.layout import Layout
from ..._engine.stepper import Stepper
from ..._engine.total_steps import with_total_steps
from ..._training.accumulate import first_number, set_windows, windows
from ..._training.learner import AbstractLearner
from ..._training.loader import Place
from ..._types import Model, PRNGKey, State
from .._checkpoint.torch_arrays import leaf_names, pack, unpack
from .._errors import CheckpointMismatchError
from .._trainer.options import Options
from .fit_optimizer import fit_optimizer
from .picklable_keys import with_keys, without_keys
from .run_place import RunPlace

T = TypeVar("T")

_OPTIMIZER = "opt_state"  # a field of this name in a learner's state is optax's


@dataclass(frozen=True)
class Lent:
    """A state of another step than the live one, and the place in the data then."""

    state: State
    step: int
    place: Place


class Run:
    """Training of one learner over any number of fits, restarts and optimisers.

    The compiled `Stepper` is made when it is first needed and kept as long as the
    program stays the same.

    **Arguments:**

    - `learner`, `model`: the learner, and the model that it trains.
    - `init_key`, `key`: of the initial state, and of all steps.
    - `steps_per_dispatch`, `layout`: as in `jaxprob.Stepper`.
    """

    def __init__(
        self,
        learner: AbstractLearner,
        model: Model,
        *,
        init_key: PRNGKey,
        key: PRNGKey,
        steps_per_dispatch: int | Literal["auto"],
        layout: Layout,
    ):
        self.key = key
        self.active = learner
        self.steps_per_dispatch: int | Literal["auto"] = steps_per_dispatch
        self.layout = layout
        self.learner = learner
        self._total_updates: int | None = None
        self._template = model
        self._init_key = init_key
        self.options = Options()
        self.fresh = True  # until a step is made or a state is loaded
        self._initial: State | None = self.first_state()
        self._first_step = 0
        self._optimizer_began = 0
        self._stepper: Stepper | None = None
        self.place = RunPlace()
        self.lent: Lent | None = None  # what is read instead of the stepper's state

    @property
    def state(self) -> State:
        """The live state, whose buffers the next dispatch consumes."""
        stepper, lent = self._stepper, self.lent
        if lent is not None:
            return lent.state
        return self._initial if stepper is None else stepper.live

    def fetch(self) -> State:
        """Return a copy of the state, whole on one device or split along `shard`.

        All processes must call it.
        """
        # In this order: another thread may read while the stepper is being made.
        initial, stepper, lent = self._initial, self._stepper, self.lent
        if lent is not None:
            initial = lent.state
        elif stepper is not None:
            return stepper.fetch()
        return jax.tree.map(
            lambda leaf: jnp.copy(leaf) if eqx.is_array(leaf) else leaf, initial
        )

    def read(self, function: Callable[[State], T]) -> T:
        """Return what a function makes of the state, without a copy of it."""
        initial, stepper, lent = self._initial, self._stepper, self.lent
        if lent is not None:
            return function(lent.state)
        return function(initial) if stepper is None else stepper.read(function)

    def wait(self) -> None:
        """Wait for the device, and raise the error of a step that failed."""
        if self._stepper is not None and self.lent is None:
            self._stepper.wait()

    @property
    def next_place(self) -> Place:
        """Place of the next batch in the data."""
        return self.place.at(self.step) if self.lent is None else self.lent.place

    @property
    def step(self) -> int:
        """Number of the next step."""
        if self.lent is not None:
            return self.lent.step
        return self._first_step if self._stepper is None else self._stepper.step

    @property
    def optimizer_steps(self) -> int:
        """Number of batches of the optimiser, which a Trainer may have replaced."""
        return self.step - self._optimizer_began

    @property
    def updates(self) -> int:
        """Number of updates of the optimiser. Reading it waits for the device."""
        found = windows(self.state)
        if self.accumulate == 1 or not found:
            return self.optimizer_steps
        return first_number(found[0].num_updates)

    def set_windows(self, **fields: Any) -> None:
        """Set fields of the states in which gradients are accumulated."""
        self.restart(set_windows(self.state, **fields), self.step)

    @property
    def accumulate(self) -> int:
        """Number of batches whose gradients make one update."""
        return self.options.accumulate

    @property
    def stepper(self) -> Stepper:
        if self._stepper is None:
            self.restart(self._initial, self._first_step)
        assert self._stepper is not None
        return self._stepper

    def restart(self, state: State, step: int) -> None:
        """Continue from a state, with the same compiled program if there is one."""
        if self._stepper is None:
            self._make_stepper(state, step)
        else:
            self._stepper.resume(state, key=self.key, step=step)

    def _make_stepper(self, state, step):
        self._stepper = Stepper(
            self.active,
            state,
            key=self.key,
            step=step,
            steps_per_dispatch=self.steps_per_dispatch,
            layout=self.layout,
            fatal=False,  # a Trainer's run continues, unless it detects anomalies
        )
        self._initial = None

    def adopt(self, options: Options) -> bool:
        """Change the optimiser step to the options of a Trainer.

        The weights stay, and the state of the optimiser where it has the same form; in
        another precision the optimiser begins anew.

        **Returns:** whether anything changed.
        """
        if options == self.options:
            return False
        keeps = not self.fresh and options.precision == self.options.precision
        made = self.updates
        self.options = options
        self.active = _applied(self.learner, self._total_updates, options)
        step = self._optimizer_began = self.step
        # No precision before this one has rounded anything in a fresh run.
        before = self.first_state() if self.fresh else self.fetch()
        kept = {
            name: leaf
            for name, leaf in leaf_names(before).items()
            if not is_optimizer_leaf(name)
        }
        fresh = self.active.init(self._template, key=self._init_key)
        state = jax.tree_util.tree_map_with_path(
            lambda path, leaf: _carried_over(kept, path, leaf), fresh
        )
        if keeps:
            state = self._with_optimizer_of(before, state, made)
        self._make_stepper(state, step)
        return True

    def build_optimizers(self, total_updates: int) -> None:
        """Build the optimisers that wait for the number of updates of the whole run.

        The state stays: its structure does not depend on the number.
        """
        if total_updates == self._total_updates:
            return
        self._total_updates = total_updates
        self.active = _applied(self.learner, total_updates, self.options)
        fresh = self.active.init(self._template, key=self._init_key)
        self._make_stepper(fresh if self.fresh else self.fetch(), self.step)

    def note_updates(self, made: int) -> None:
        """Set the number of updates that the optimiser has made."""
        self._optimizer_began = self.step - made

    def _with_optimizer_of(self, before, state, made):
        """Return a state with that of the optimiser before it was wrapped anew."""
        # The window of an interrupted fit is no part of the next.
        before = set_windows(before, accumulated=0, num_accumulated=0, closing=False)
        tensors = pack(optimizer_leaves(before))
        try:
            fitted, _ = fit_optimizer(optimizer_leaves(state), tensors, made)
            state = unpack(state, fitted)
        except CheckpointMismatchError:
            return state
        self.note_updates(made)
        return state

    def first_state(self, precision: str | None = None) -> State:
        """Return the initial state, in the precision of a Trainer if it is given."""
        learner = self.learner
        if precision is not None:
            learner = replace(self.options, precision=precision).apply(learner)
        return learner.init(self._template, key=self._init_key)

    # Copies: `copy.deepcopy`, pickle, and sending a module to a process.

    def __getstate__(self) -> dict[str, Any]:
        """Leave out compiled programs."""
        state = {"_initial": self.fetch(), "_first_step": self.step, "_stepper": None}
        return without_keys(self.__dict__ | state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(with_keys(state))


def _applied(learner, total_updates, options):
    """Return a learner under options of a Trainer, with its optimisers built."""
    if total_updates is not None:
        learner = with_total_steps(learner, total_updates)
    return options.apply(learner)


def is_optimizer_leaf(name: str) -> bool:
    """Return whether a leaf of a learner's state, by its path, belongs to optax."""
    return _OPTIMIZER in name.split(".")


def optimizer_leaves(state: State) -> dict[str, Any]:
    """Return the arrays of a learner's state that belong to optax, by path."""
    return {n: x for n, x in leaf_names(state).items() if is_optimizer_leaf(n)}


def _carried_over(kept, path, leaf):
    """Return the value of a leaf before the optimiser was changed, in its new dtype."""
    name = path_name(path)
    if name not in kept or not eqx.is_array(leaf):
        return leaf
    same = kept[name].dtype == leaf.dtype
    return kept[name] if same else kept[name].astype(leaf.dtype)
