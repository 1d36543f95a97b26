"""The live state of a run: consumed by each dispatch, and readable at any time.

A dispatch takes the buffers of the state before it returns those of the next. An error
inside it, or an exception of a signal's handler at the wrong bytecode, leaves neither.
Then the state is made again from the kept copy and the batches since (`Snapshot`).
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from .._jaxpr.own_errors import OWN_ERRORS, is_of_memory
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
        return self.runner.key

    def begin(self, arrays: PyTree, key: PRNGKey, step: int) -> None:
        """Go on from other arrays. The sums of the metrics stay."""
        with HELD, self._lock:
            self._begin(arrays, key, step, self._sound().carry[2])

    def _begin(self, arrays, key, step, totals):
        arrays, key, number = _placed(self.program, arrays, key, step)
        with HELD, self._lock:
            self.runner = Runner(self.program, key)
            self.snapshot, self._failed = None, None
            self._now = Now((arrays, number, totals), step)

    def change(self, program: Program) -> None:
        """Go on by another program of the same arrays."""
        with HELD, self._lock:
            self._now = self._sound()
            self.runner = Runner(program, self.key)
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

    def copy(self) -> PyTree:
        """Return copies of the arrays, where they lie. This waits for the device."""
        with self._lock:
            arrays = copied(self._sound().carry[0])
        if self._has(arrays):
            return arrays
        with self._lock:
            return jax.block_until_ready(copied(self._sound().carry[0]))

    def read(self, function: Callable[[PyTree], Any]) -> Any:
        """Call a function with the arrays, which no dispatch consumes meanwhile.

        Unlike `copy` it needs no memory for a second state.
        """
        with self._lock:
            self._has(self._sound().carry[0])
            return function(self._sound().carry[0])

    def is_readable(self) -> bool:
        """Return whether there is memory to make the state again, after an error."""
        with HELD, self._lock, OWN_ERRORS:
            failed = self._failed
            for _ in range(2):
                try:
                    jax.block_until_ready(self._sound().carry)
                except Exception as error:
                    self._recover(error)
                    if is_of_memory(error):
                        self._failed = failed  # the answer, not an error to raise
                else:
                    return True
            return False

    def wait(self) -> None:
        """Wait for the device, and raise the error of a step that failed."""
        with self._lock:
            number = self._sound().carry[1]
        self._has(number)
        self.raise_failed()

    def _has(self, arrays):
        """Wait for arrays; return `False` if a step failed and the state went back."""
        try:
            jax.block_until_ready(arrays)
        except Exception as error:
            self._recover(error)
            return False
        return True

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
        before it in the same call, and their number. Without memory it is the state
        before the call.
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
                carry, info = self.runner.run(now.carry, now.step, batches, num)
            except Exception as error:
                self._recover(error, (batches, num))
            else:
                self._now = Now(carry, now.step + num)
                return info
        # Outside of the `except`, or the user's error would get another context.
        self.raise_failed()
        raise AssertionError("an error was noted")

    def go_back(self, step: int) -> None:
        """Make the state before an earlier step again, from the kept copy on."""
        with HELD, self._lock:
            assert self.snapshot is not None
            self._now = Now(self.runner.replay(self.snapshot, step), step)
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

        `failing` is the work whose call raised the error of the program, if a call did.
        """
        with HELD, self._lock, OWN_ERRORS:
            self._failed = OWN_ERRORS.of(error)
            snapshot, now = self.snapshot, self._now
            if snapshot is None:
                return
            # Perhaps there is no memory now: the next read of the state tries again.
            with contextlib.suppress(Exception):
                carry, step, rescued = self.runner.last_good(
                    snapshot, now.step, failing
                )
                self._now, self.rescued = Now(carry, step), rescued
            snapshot.cut(self._now.step)


def _placed(program, arrays, key, step):
    """Return copies of arrays and key, and the step's number, where a program runs."""
    shardings, layout = program.shardings, program.layout
    number = jnp.asarray(step, jnp.int32)
    if shardings is None:
        return owned(arrays), jnp.copy(key), number
    arrays = layout.place(jax.tree.map(strongly_typed, arrays), shardings)
    return arrays, *layout.place((key, number), layout.everywhere)
