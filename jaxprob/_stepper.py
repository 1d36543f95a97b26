"""Many optimiser steps in one dispatch.

A step of a small model computes for 20 microseconds and costs 60 more to hand to XLA.
So K batches are stacked and one program runs K steps: `lax.fori_loop` over a dynamic
number of them, which is one compilation for any number up to K and gives the same bits
as single steps.

A learner with a convolution on CPU is run step by step (see `can_fuse`), a decision
taken from the program and never from a clock.
"""

import dataclasses
import functools
import time
import warnings
from collections.abc import Iterable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ._batch import RowStack, Stack, own, unpack
from ._dispatch_size import DispatchSize, num_bytes
from ._host_errors import check_metrics
from ._keys import step_key
from ._last_good import Kept, first_break
from ._layout import Layout
from ._learner import AbstractLearner
from ._program import Program
from ._stacking import copied, owned, shape_of, stack_into, strong
from ._totals import StepMetrics, Totals
from ._types import PRNGKey, State


class Stepper:
    """Compiled training of one learner.

    ```python
    stepper = Stepper(learner, learner.init(model, key=init_key), key=train_key)
    history = stepper([batch, batch, batch])      # three steps, one dispatch
    stepper.state
    ```

    The key of step k is `fold_in(key, k)`, derived inside the program. The state given
    is copied; the live one is donated to each dispatch, so take `stepper.state` anew
    after each call.

    **Arguments:**

    - `learner`: what to train.
    - `state`: where to start from.
    - `key`: of the whole run.
    - `step`: the number of the next step, for a run that goes on.
    - `steps_per_dispatch`: how many steps a dispatch may hold. `"auto"` times a few
        single steps and chooses about 80 ms of work, at most 512 steps and 64 MB.
    - `layout`: the devices; JAX's default one if it is not given.
    - `check_every`: steps from one `check_state` to the next. For it a copy of the
        state is kept, and the batches since, up to 256 MB; with 0 nothing is.
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
        if steps_per_dispatch != "auto" and (
            not isinstance(steps_per_dispatch, int) or steps_per_dispatch < 1
        ):
            raise ValueError(
                f"steps_per_dispatch={steps_per_dispatch!r}: give 'auto' or an integer "
                "of at least 1"
            )
        self.learner = learner
        self._size = DispatchSize(steps_per_dispatch)
        self.layout = Layout() if layout is None else layout
        if not isinstance(self.layout, Layout):
            raise TypeError(f"layout={layout!r}: give jaxprob.Layout(data=4) or None")
        if check_every < 0:
            raise ValueError(f"check_every={check_every}: steps, or 0 for never")
        self.check_every = check_every
        self.fatal = fatal
        arrays, self._static = eqx.partition(state, eqx.is_array)
        self._program = Program.of(learner, arrays, self._static, self.layout)
        self._begin(arrays, key, step)
        self._kept: Kept | None = None
        self._totals: Totals | None = None
        self._carried: Totals | None = None  # from a program to the one after it
        self._table: tuple[Any, Any] = (None, None)  # as given, and where it is used

    @property
    def capacity(self) -> int:
        """How many steps a dispatch may hold now."""
        return self._size.steps

    @property
    def affordable(self) -> int:
        """How many steps a dispatch would hold if as many batches came in a row."""
        return self._size.chosen if self._program.fused else 1

    def bound(self, longest: int | float) -> None:
        """Says how many batches come in a row at most, such as those of an epoch.

        With `"auto"` stacks are then not much longer than that.
        """
        self._size.longest = max(1, longest)

    @property
    def slots(self) -> int:
        """How long a `Stack` is to be: `capacity`, and at least two."""
        return max(2, self.capacity)

    @property
    def tuning(self) -> bool:
        """Whether `steps_per_dispatch="auto"` still has steps to time."""
        return self._size.trials > 0

    @property
    def state(self) -> State:
        """The live state. The next dispatch consumes its buffers."""
        return eqx.combine(self._arrays, self._static)

    def resume(self, state: State, *, key: PRNGKey, step: int) -> None:
        """Goes on from another state of the same structure, with the same programs."""
        arrays, static = eqx.partition(state, eqx.is_array)
        if not eqx.tree_equal(static, self._static):
            raise ValueError(
                "resume takes a state like the one the stepper was made with; its "
                "settings differ. Make a new Stepper"
            )
        self._begin(arrays, key, step)
        self._kept = None

    def refresh(self) -> None:
        """Compiles anew if a value that the learner reads from outside has changed.

        The state and the sums of the metrics stay as they are.
        """
        if not self._program.outside.values:
            return
        program = Program.of(self.learner, self._arrays, self._static, self.layout)
        if program is self._program:
            return
        self.check_state()
        self._kept = None
        self._program, self._carried, self._totals = program, self._totals, None

    @property
    def step(self) -> int:
        """The number of the next step. Reading it waits for the device."""
        return int(self._step)

    def fetch(self) -> State:
        """The state whole on one device, in buffers that no dispatch consumes."""
        arrays = copied(self.layout.fetch(self._arrays))
        return eqx.combine(arrays, self._static)

    @property
    def totals(self) -> Totals | None:
        """Metrics summed since `reset_totals`, still on the device."""
        return self._totals

    def reset_totals(self) -> None:
        """Starts the sums anew, as at the start of an epoch."""
        self._carried = None
        if self._totals is not None:
            self._totals = self._program.no_totals()

    def check_state(self) -> None:
        """Looks whether the state is finite, which waits for the device.

        Every `check_every` steps it is done without being asked for.

        **Raises:** `NonFiniteError` when a leaf is not finite that was, with the first
        step that broke it and the leaf where its gradient is not finite. The stepper
        then holds the state before that step. If not `fatal`, this is a warning, the
        state stays as it is, and nothing is checked any more.
        """
        kept = self._kept
        if kept is not None and kept.work and kept.broken(self._arrays):
            self._fail(kept)

    def __call__(self, batches: Iterable[PyTree] | Stack) -> StepMetrics:
        """Trains on the batches in turn.

        A `Stack` as long as `slots`, which an `ArrayLoader` gathers in one go, saves
        the stacking.

        **Returns:** every metric by name, one value for each step, fetched when read:
        nothing waits here.
        """
        if isinstance(batches, Stack):
            if self._totals is None:
                self._trace(batches.at(0))
            if self._takes(batches):
                info = self._dispatch_stack(batches)
                self._look(info, batches.num)
                return StepMetrics([(info, batches.num)])
            batches = batches.unstack()
        batches = list(batches)
        if self._totals is None and batches:
            self._trace(batches[0])
        parts = []
        while batches:
            run = batches[: self._run_length(batches)]
            batches = batches[len(run) :]
            info = self._dispatch(run)
            self._look(info, len(run))
            parts.append((info, len(run)))
        return StepMetrics(parts)

    def _run_length(self, batches):
        """How many batches from the first on are alike and fit one dispatch."""
        if not self._program.fused:
            return 1
        shape = shape_of(batches[0])
        same = next(
            (i for i, b in enumerate(batches) if shape_of(b) != shape), len(batches)
        )
        return min(same, self.capacity)

    def _takes(self, stack):
        """Whether a stack can be dispatched as it is."""
        if not self._program.fused or self.tuning or stack.capacity != self.slots:
            return False
        if isinstance(stack, RowStack):
            return stack.rows.shape[1] % self.layout.data == 0
        return True

    def _dispatch(self, run):
        begin = time.perf_counter()
        if not self._program.fused:
            batch = own(run[0])
            self._note(batch, 1)
            info = self._run(batch, 1)
        else:
            # A lone step goes through a loop too: the same body rounds alike, where a
            # bare step may be fused otherwise.
            slots = self._size.slots(len(run), num_bytes(run[0]))
            stacked = jax.tree.map(functools.partial(stack_into, slots), *run)
            info = self._dispatch_stack(Stack(stacked, len(run)))
        if self.tuning:
            self._tune(run[0], info, begin)
        return info

    def _place_table(self, table):
        if self.layout.is_single:
            return table
        if self._table[0] is not table:
            self._table = table, jax.device_put(table, self.layout.everywhere)
        return self._table[1]

    def _begin(self, arrays, key, step):
        shardings = self._program.shardings
        if shardings is None:
            self._arrays = owned(arrays)
            self._key = jnp.copy(key)
            self._step = jnp.asarray(step, jnp.int32)
            return
        place, everywhere = self.layout.place, self.layout.everywhere
        self._arrays = place(jax.tree.map(strong, arrays), shardings)
        self._key = place(key, everywhere)
        self._step = place(jnp.asarray(step, jnp.int32), everywhere)

    def _note(self, batches, num):
        """Holds what is done next; when that is too much, after another copy."""
        kept = self._kept
        if kept is not None and kept.is_full(num, self.check_every):
            self.check_state()
            kept = self._kept = None  # its buffers go before a copy comes
        if not self.check_every or not num:
            return
        if kept is None:
            kept = Kept(copied(self._arrays), self.step)
            self._kept = kept
        kept.add(batches, num)

    def _fail(self, kept):
        found = first_break(kept, self._again)
        state = eqx.combine(found.arrays, self._static)
        gradient = None
        if not self._program.checked:  # else arrays lie on several
            said = _said_of(self.learner, state, found.batch)
            found = dataclasses.replace(found, said=said)
            key = step_key(self._key, found.step)
            batch = self.layout.put(own(found.batch))
            gradient = eqx.filter_jit(self.learner.gradient)(state, batch, key=key)
        self._kept = None
        if self.fatal:
            self._begin(found.arrays, self._key, found.step)
            raise found.error(self.fetch(), gradient)
        self.check_every = 0
        warnings.warn(found.words(gradient), stacklevel=2)

    def _again(self, arrays, step, batches, num):
        """Makes steps once more, from arrays that stay as they are."""
        live = self._arrays, self._step, self._totals
        self._totals = self._program.no_totals()
        self._begin(arrays, self._key, step)
        try:
            info = self._run(batches, num)
            return self._arrays, info
        finally:
            self._arrays, self._step, self._totals = live

    def _look(self, info, num):
        """Raises what a check inside the program would have raised on one device."""
        if self._program.checked:
            check_metrics(jax.device_get(info), num, self.step)

    def _dispatch_stack(self, stack):
        self._note(stack, stack.num)
        return self._run(stack, stack.num)

    def _run(self, batches, num):
        """Makes the first `num` steps of a stack, or the one of a batch."""
        assert self._totals is not None  # from the trace on
        carry = (self._arrays, self._step, self._totals)
        if isinstance(batches, Stack):
            stacked = self._placed(batches)
            carry, info = self._program.many(carry, self._key, stacked, num)
        else:
            batch = self.layout.put(batches)
            carry, info = self._program.one(carry, self._key, batch)
        self._arrays, self._step, self._totals = carry
        return info

    def _placed(self, stack):
        if not isinstance(stack, RowStack):
            return self.layout.put(stack.batches, 1)
        rows, mask = self.layout.put((stack.rows.astype(np.int32), stack.mask), 1)
        return self._program.gather(self._place_table(stack.table), rows, mask)

    def _tune(self, batch, info, begin):
        jax.block_until_ready(info)
        seconds, idle = time.perf_counter() - begin, 0.0
        if self._program.fused:
            # A dispatch of no steps costs all that does not grow with their number.
            begin = time.perf_counter()
            slots = self._size.slots(1, num_bytes(batch))
            nothing = jax.tree.map(functools.partial(stack_into, slots), batch)
            jax.block_until_ready(self._dispatch_stack(Stack(nothing, 0)))
            idle = time.perf_counter() - begin
        self._size.add(seconds, idle)
        if not self.tuning:
            capacity = self.layout.agree(self._size.choose(num_bytes(batch)))
            self._size.settle(capacity)
            self._program.settled[num_bytes(batch)] = capacity

    def _trace(self, batch):
        self._program.trace(self._arrays, self._key, batch)
        self._totals = self._program.no_totals()
        carried, self._carried = self._carried, None
        if carried is not None and carried.sums.keys() == self._totals.sums.keys():
            self._totals = carried
        settled = self._program.settled.get(num_bytes(batch))
        if self.tuning and settled is not None:
            self._size.settle(settled)


def _said_of(learner, state, batch):
    """What `check` says against a batch that came from an iterable, unseen."""
    try:
        data, mask = unpack(batch)
    except ValueError:  # no table of rows
        return None
    rows = np.flatnonzero(np.asarray(mask))
    if len(rows) < 2:  # few for a check that is for whole data sets
        return None
    data = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], data)
    try:
        learner.check(learner.model(state), data)
    except (ValueError, TypeError) as error:
        return str(error)
    return None
