"""The live state of a run: consumed by each dispatch, and readable at any time.

A dispatch takes the buffers of the state before it returns those of the next. An error
inside it, or an exception of a signal's handler at the wrong bytecode, leaves neither.
Then the state is made again from the kept copy and the batches since (`Snapshot`).
"""

import contextlib
import threading
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._jaxpr.own_errors import OWN_ERRORS
from .._types import PRNGKey
from .held_signals import HELD
from .last_good import Snapshot
from .program import Carry, Metrics, Program
from .runner import Runner
from .stacking import copied, owned, strongly_typed
from .totals import Totals


class Now(NamedTuple):
    """The carry of the program, and the number of the next step.

    It is replaced as a whole, by one assignment.
    """

    carry: Carry
    step: int


class LiveState:
    """Arrays that a program advances, readable from any thread at any time.

    **Arguments:**

    - `program`: the program that makes steps. If it does not donate, the state before a
        dispatch is kept as it is, and each dispatch waits for the one before it.
    - `arrays`, `key`, `step`: where to begin; the arrays are copied.
    """

    def __init__(self, program: Program, arrays: PyTree, key: PRNGKey, step: int):
        self.program = program
        self.snapshot: Snapshot | None = None
        self.rescued: tuple[Metrics, int] | None = None
        self._lock = threading.RLock()
        self._failed: BaseException | None = None
        self._begin(arrays, key, step, None)

    @property
    def key(self) -> PRNGKey:
        """The key of the whole run, on the devices of the program."""
        return self._runner.key

    def begin(self, arrays: PyTree, key: PRNGKey, step: int) -> None:
        """Go on from other arrays. The sums of the metrics stay."""
        with HELD, self._lock:
            self._begin(arrays, key, step, self._sound().carry[2])

    def _begin(self, arrays, key, step, totals):
        shardings, layout = self.program.shardings, self.program.layout
        number = jnp.asarray(step, jnp.int32)
        if shardings is None:
            arrays, key = owned(arrays), jnp.copy(key)
        else:
            arrays = layout.place(jax.tree.map(strongly_typed, arrays), shardings)
            key, number = layout.place((key, number), layout.everywhere)
        with HELD, self._lock:
            self._runner = Runner(self.program, key)
            self.snapshot, self._failed = None, None
            self._now = Now((arrays, number, totals), step)

    def change(self, program: Program) -> None:
        """Go on by another program of the same arrays."""
        with HELD, self._lock:
            self._now = self._sound()
            self._runner = Runner(program, self.key)
            self.program, self.snapshot = program, None

    def match_totals(self) -> None:
        """Begin the sums anew, unless they are of the metrics of the program."""
        with HELD, self._lock:
            arrays, number, totals = self._sound().carry
            fresh = self.program.no_totals()
            if totals is None or totals.sums.keys() != fresh.sums.keys():
                self._now = Now((arrays, number, fresh), self._now.step)

    @property
    def step(self) -> int:
        """The number of the next step."""
        return self._now.step

    @property
    def arrays(self) -> PyTree:
        """The arrays themselves, which the next dispatch consumes."""
        with self._lock:
            return self._sound().carry[0]

    @property
    def totals(self) -> Totals | None:
        """A copy of the metrics' sums, or `None` before the first step."""
        with self._lock:
            return copied(self._sound().carry[2])

    def copy(self, select: Callable[[PyTree], PyTree] = lambda tree: tree) -> PyTree:
        """Return copies of the arrays, where they lie. This waits for the device.

        **Arguments:**

        - `select`: returns the part of the tree of arrays that is copied.
        """
        with self._lock:
            arrays = copied(select(self._sound().carry[0]))
        try:
            return jax.block_until_ready(arrays)
        except Exception as error:
            self._recover(error)
        with self._lock:
            return jax.block_until_ready(copied(select(self._sound().carry[0])))

    def wait(self) -> None:
        """Wait for the device, and raise the error of a step that failed."""
        with self._lock:
            number = self._sound().carry[1]
        try:
            jax.block_until_ready(number)
        except Exception as error:
            self._recover(error)
        self.raise_failed()

    def raise_failed(self) -> None:
        """Raise the error that a read of the state has found, once."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def reset_totals(self) -> None:
        """Begin the sums of the metrics anew."""
        with HELD, self._lock:
            arrays, number, totals = self._sound().carry
            if totals is None:
                return
            if self.snapshot is not None:
                self.snapshot.add_reset()
            carry = arrays, number, self.program.no_totals()
            self._now = Now(carry, self._now.step)

    def advance(self, batches: PyTree, num: int) -> Metrics:
        """Make the first `num` steps of a stack, or the one of a batch.

        **Raises:** the error of the step that fails, as the user's code raised it. The
        state is then that before the step, and `rescued` are the metrics of the steps
        before it in the same call, and their number.
        """
        with HELD, self._lock, OWN_ERRORS:
            self.raise_failed()
            self.rescued = None
            now = self._ready()
            if num:
                if self.snapshot is None:
                    arrays, _, totals = copied(now.carry)
                    self.snapshot = Snapshot(arrays, totals, now.step)
                self.snapshot.add(batches, num)
            try:
                carry, info = self._runner.run(now.carry, now.step, batches, num)
            except Exception as error:
                self._recover(error, (batches, num))
            else:
                self._now = Now(carry, now.step + num)
                return info
        # Outside of the `except`, or the user's error would get another context.
        self.raise_failed()
        raise AssertionError("an error was noted")

    def again(
        self, arrays: PyTree, step: int, batches: PyTree, num: int
    ) -> tuple[PyTree, Metrics]:
        """Make steps once more, from arrays that stay as they are."""
        return self._runner.again(arrays, step, batches, num)

    def go_back(self, step: int) -> None:
        """Make the state before an earlier step again, from the kept copy on."""
        with HELD, self._lock:
            assert self.snapshot is not None
            self._now = Now(self._runner.replay(self.snapshot, step), step)
            self.snapshot.cut(step)

    def _ready(self):
        """The carry and the step, to be advanced."""
        if not self.program.donates:
            self.wait()  # so that memory holds one state and the next, and no more
            self.snapshot = None
        now = self._sound()
        arrays, number, totals = now.carry
        if totals is None:
            totals = self.program.no_totals()
            now = self._now = Now((arrays, number, totals), now.step)
        if not self.program.donates:
            self.snapshot = Snapshot(arrays, totals, now.step)
        return now

    def _sound(self) -> Now:
        """The carry, made again if a dispatch that never returned has consumed it."""
        snapshot, now = self.snapshot, self._now
        if snapshot is not None and snapshot.step + snapshot.num_steps != now.step:
            snapshot.cut(now.step)  # noted, but never made
        if now.carry[1].is_deleted():
            self.go_back(now.step)
        return self._now

    def _recover(self, error, failing=None):
        """Find the last step that can be made, and go back to the state after it.

        **Arguments:**

        - `error`: of the program.
        - `failing`: the work whose call raised the error, if a call did. Otherwise it
            is an error of work that was handed over before.
        """
        with HELD, self._lock, OWN_ERRORS:
            self._failed = OWN_ERRORS.of(error)
            snapshot, now = self.snapshot, self._now
            if snapshot is None:
                return
            # Perhaps there is no memory now: the next read of the state tries again.
            with contextlib.suppress(Exception):
                self._now = self._last_good(snapshot, now.step, failing)
            snapshot.cut(self._now.step)

    def _last_good(self, snapshot, step, failing):
        try:
            before = self._runner.replay(snapshot, step)
        except Exception:
            before, step, failing = self._runner.first_failing(snapshot)
        num, self.rescued = 0, None
        if failing is not None:
            before, num, self.rescued = self._runner.longest(before, step, *failing)
        return Now(before, step + num)
