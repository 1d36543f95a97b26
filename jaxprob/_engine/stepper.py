"""Many optimiser steps in one dispatch.

A step of a small model computes for 20 microseconds and costs 60 more to hand to XLA.
So K batches are stacked and one program runs K steps: `lax.fori_loop` over a dynamic
number of them, which is one compilation for any number up to K and gives the same bits
as single steps.

A learner with a convolution on CPU is run step by step (see `can_fuse`), a decision
taken from the program and never from a clock.
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Literal, TypeVar

import equinox as eqx
from jaxtyping import PyTree

from .._training.batch import Stack
from .._training.learner import AbstractLearner
from .._types import PRNGKey, State
from .broken_step import explained
from .dispatch_size import DispatchSize
from .dispatcher import Dispatcher
from .last_good import first_break
from .layout import Layout
from .live_state import LiveState
from .program import Metrics, Program
from .totals import StepMetrics, Totals

T = TypeVar("T")


class Stepper:
    """Compiled training of one learner.

    ```python
    stepper = Stepper(learner, learner.init(model, key=init_key), key=train_key)
    history = stepper([batch, batch, batch])      # three steps, one dispatch
    stepper.state
    ```

    The key of step k is `fold_in(key, k)`, derived inside the program. The state given
    is copied, and so is the one that is read: it outlives the next call.

    The state can be read at any time, also from another thread, after an error inside
    a step, and after Ctrl-C. An error in step k leaves the state before step k, from
    which the next call goes on; it is raised as the user's code raised it. Handlers of
    signals are called between two dispatches (a second Ctrl-C inside one). Steps that
    are lost are made again from a copy that is kept: host callbacks inside a step may
    then be called again for the same step.

    **Arguments:**

    - `learner`: what to train.
    - `state`: where to start from.
    - `key`: of the whole run.
    - `step`: the number of the next step, for a run that goes on.
    - `steps_per_dispatch`: how many steps a dispatch may hold. `"auto"` times a few
        single steps and chooses about 80 ms of work, at most 512 steps and 64 MB.
    - `layout`: the devices; JAX's default one if it is not given.
    - `check_every`: steps from one `check_state` to the next. A copy of the state is
        kept, and the batches since, up to 256 MB and 20 seconds. With 0 nothing is
        checked and no batches are kept. A dispatch then leaves the state before it in
        memory and waits for the dispatch before.
    - `fatal`: whether a state that is broken ends the run, or is warned of once.
    """

    def __init__(
        self,
        learner: AbstractLearner,
        state: State,
        *,
        key: PRNGKey,
        step: int = 0,
        steps_per_dispatch: int | Literal["auto"] = "auto",
        layout: Layout | None = None,
        check_every: int = 1024,
        fatal: bool = True,
    ):
        _check_settings(steps_per_dispatch, layout, check_every)
        self.learner = learner
        self.layout = Layout() if layout is None else layout
        self.check_every = check_every
        self.fatal = fatal
        arrays, self._static = eqx.partition(state, eqx.is_array)
        self._checks = self._donates = check_every > 0
        self._program = Program.of(
            learner, arrays, self._static, self.layout, self._donates
        )
        self._looks_outside = False  # a program that is asked for is one of now
        self._rescued: list[tuple[Metrics, int]] = []
        self._live = LiveState(self._program, arrays, key, step)
        size = DispatchSize(steps_per_dispatch)
        self._dispatcher = Dispatcher(self._live, size, self._before_steps)

    @property
    def capacity(self) -> int:
        """Number of steps that a dispatch may hold now."""
        return self._dispatcher.size.steps

    @property
    def affordable(self) -> int:
        """Number of steps a dispatch would hold if as many batches came in a row."""
        return self._dispatcher.size.chosen if self._program.fused else 1

    def bound(self, longest: int | float) -> None:
        """Set how many batches come in a row at most; stacks are hardly longer."""
        self._dispatcher.size.longest = max(1, longest)

    @property
    def slots(self) -> int:
        """Length of a `Stack` that is dispatched as it is: `capacity`, at least two."""
        return self._dispatcher.slots

    @property
    def tuning(self) -> bool:
        """True while `steps_per_dispatch="auto"` still times steps."""
        return self._dispatcher.size.trials > 0

    @property
    def state(self) -> State:
        """A copy of the state, on the layout's devices. It waits for the device."""
        return eqx.combine(self._live.copy(), self._static)

    @property
    def live(self) -> State:
        """The state without a copy. The next call consumes its buffers."""
        return eqx.combine(self._live.arrays, self._static)

    def resume(self, state: State, *, key: PRNGKey, step: int) -> None:
        """Go on from another state of the same structure, with the same programs."""
        arrays, static = eqx.partition(state, eqx.is_array)
        if not eqx.tree_equal(static, self._static):
            raise ValueError(
                "the state has other settings than the stepper's: make a new Stepper"
            )
        self._live.begin(arrays, key, step)

    def refresh(self) -> None:
        """Compile anew if a value that the learner reads from outside has changed.

        The state and the sums of the metrics stay as they are.
        """
        if not self._program.outside.values:
            return
        program = Program.of(
            self.learner, self._live.arrays, self._static, self.layout, self._donates
        )
        if program is self._program:
            return
        self.check_state()
        self._live.change(program)
        self._program = program

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self._live.step

    @property
    def copied_at(self) -> int | None:
        """The number of the next step when the state was last copied."""
        return getattr(self._live.snapshot, "step", None)

    @property
    def rescued(self) -> StepMetrics | None:
        """Metrics of the good steps in the last call, if that has raised an error."""
        return StepMetrics(self._rescued) if self._rescued else None

    def fetch(self) -> State:
        """A copy of the state as `fit` returns it. It waits for the device."""
        arrays = self.layout.result(self._live.copy())
        return eqx.combine(arrays, self._static)

    def read(self, function: Callable[[State], T]) -> T:
        """Return what a function makes of the state, without a copy for it to keep."""
        return self._live.read(lambda a: function(eqx.combine(a, self._static)))

    def is_readable(self) -> bool:
        """Return whether there is memory now to make the state again after an error."""
        return self._live.is_readable()

    def last_copy(self) -> tuple[State, int]:
        """Return the last copy of the state, and its number of steps.

        It is at most `check_every` steps or 20 seconds old, and needs no memory.
        """
        snapshot = self._live.snapshot
        if snapshot is None:
            return self.state, self.step
        return eqx.combine(snapshot.arrays, self._static), snapshot.step

    def wait(self) -> None:
        """Wait for the device, and raise the error of a step that failed meanwhile."""
        self._live.wait()

    @property
    def totals(self) -> Totals | None:
        """Metrics summed since `reset_totals`, still on the device."""
        return self._live.totals

    def reset_totals(self) -> None:
        """Begin the sums anew, and let the next call begin with a `refresh`."""
        self._live.reset_totals()
        self._looks_outside = True

    def check_state(self) -> None:
        """Check that the state is finite, which waits for the device.

        Every `check_every` steps this happens by itself.

        **Raises:** `NonFiniteError` when a leaf is not finite that was, with the first
        step that broke it and the leaf where its gradient is not finite. The stepper
        then holds the state before that step. If not `fatal`, this is a warning, the
        state stays as it is, and nothing is checked any more.
        """
        self.wait()
        snapshot = self._live.snapshot
        if self._checks and snapshot is not None and snapshot.broken(self._live.arrays):
            self._fail(snapshot)

    def __call__(self, batches: Iterable[PyTree] | Stack) -> StepMetrics:
        """Train on batches, one after the other.

        A `Stack` as long as `slots`, which an `ArrayLoader` gathers in one go, saves
        the stacking.

        **Raises:** the error of a step that fails, such as that of `eqx.error_if` or
        of a host callback. The stepper then holds the state before that step.

        **Returns:** every metric by name, one value for each step, fetched when read:
        nothing waits here.
        """
        parts: list[tuple[Metrics, int]] = []
        try:
            if self._looks_outside:
                self._looks_outside = False
                self.refresh()
            self._dispatcher.train(batches, parts)
        except BaseException:
            self._rescued = [*parts, *filter(None, [self._live.rescued])]
            raise
        self._rescued = []
        return StepMetrics(parts)

    def _before_steps(self, num):
        """Check the state, and let a new copy be made, before too much is kept."""
        snapshot, most = self._live.snapshot, self.check_every
        if most and snapshot is not None and snapshot.is_full(num, most):
            self.check_state()
            self._live.snapshot = None  # its buffers go before a copy comes

    def _fail(self, snapshot):
        found = first_break(snapshot, self._live.runner.again)
        gradient = None
        if not self._program.checked:  # else arrays lie on several
            state = eqx.combine(found.arrays, self._static)
            found, gradient = explained(
                found, self.learner, state, self.layout, self._live.key
            )
        if self.fatal:
            self._live.go_back(found.step)
            raise found.error(self.fetch(), gradient)
        self._checks = False
        warnings.warn(found.message(gradient), stacklevel=2)


def _check_settings(steps_per_dispatch, layout, check_every):
    """Reject settings of a `Stepper` that could not work."""
    whole = isinstance(steps_per_dispatch, int) and steps_per_dispatch >= 1
    if steps_per_dispatch != "auto" and not whole:
        raise ValueError(
            f"steps_per_dispatch={steps_per_dispatch!r}: give 'auto' or an integer of "
            "at least 1"
        )
    if not isinstance(layout, Layout | None):
        raise TypeError(f"layout={layout!r}: give jaxprob.Layout(data=4) or None")
    if check_every < 0:
        raise ValueError(f"check_every={check_every}: steps, or 0 for never")
