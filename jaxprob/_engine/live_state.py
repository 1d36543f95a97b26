"""The live state of a run: consumed by each dispatch, and never out of reach.

A dispatch takes the buffers of the state before it returns those of the next. An error
inside it, or an exception of a signal's handler at the wrong bytecode, leaves neither.
Then the state is made again from the kept copy and the batches since (`Kept`).
"""

import contextlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._jaxpr.host_errors import check_metrics
from .._jaxpr.own_errors import OWN_ERRORS
from .._training.batch import RowStack, Stack
from .._types import PRNGKey
from .held_signals import HELD
from .last_good import Kept
from .program import Carry, Metrics, Program
from .stacking import copied, owned, strong
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

    - `program`: what makes steps. If it does not donate, the state before a dispatch is
        kept as it is, and each dispatch waits for the one before it.
    - `arrays`, `key`, `step`: where to begin; the arrays are copied.
    """

    def __init__(self, program: Program, arrays: PyTree, key: PRNGKey, step: int):
        self.program = program
        self.kept: Kept | None = None
        self.rescued: tuple[Metrics, int] | None = None
        self._layout = program.layout
        self._lock = threading.RLock()
        self._failed: BaseException | None = None
        self._table: tuple[Any, Any] = (None, None)  # as given, and where it is used
        self._begin(arrays, key, step, None)

    def begin(self, arrays: PyTree, key: PRNGKey, step: int) -> None:
        """Goes on from other arrays. The sums of the metrics stay."""
        with HELD, self._lock:
            self._begin(arrays, key, step, self._sound().carry[2])

    def _begin(self, arrays, key, step, totals):
        shardings = self.program.shardings
        number = jnp.asarray(step, jnp.int32)
        if shardings is None:
            arrays, key = owned(arrays), jnp.copy(key)
        else:
            place, everywhere = self._layout.place, self._layout.everywhere
            arrays = place(jax.tree.map(strong, arrays), shardings)
            key, number = place(key, everywhere), place(number, everywhere)
        with HELD, self._lock:
            self.key = key
            self.kept, self._failed = None, None
            self._now = Now((arrays, number, totals), step)

    def change(self, program: Program) -> None:
        """Goes on by another program of the same arrays."""
        with HELD, self._lock:
            self._now = self._sound()
            self.program, self.kept = program, None

    def match_totals(self) -> None:
        """Begins the sums anew, unless they are of the metrics of the program."""
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
        """Waits for the device, and raises the error of a step that failed."""
        with self._lock:
            arrays = self._sound().carry[1]
        try:
            jax.block_until_ready(arrays)
        except Exception as error:
            self._recover(error)
        self.raise_failed()

    def raise_failed(self) -> None:
        """Raises what a read of the state has found, once."""
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed

    def reset_totals(self) -> None:
        """Starts the sums of the metrics anew."""
        with HELD, self._lock:
            arrays, number, totals = self._sound().carry
            if totals is None:
                return
            if self.kept is not None:
                self.kept.add_reset()
            carry = arrays, number, self.program.no_totals()
            self._now = Now(carry, self._now.step)

    def advance(self, batches: PyTree, num: int) -> Metrics:
        """Makes the first `num` steps of a stack, or the one of a batch.

        **Raises:** the error of the step that fails, as the user's code raised it. The
        state is then that before the step, and `rescued` are the metrics of the steps
        before it in the same call, and their number.
        """
        with HELD, self._lock, OWN_ERRORS:
            self.raise_failed()
            self.rescued = None
            now = self._ready()
            if num:
                if self.kept is None:
                    arrays, _, totals = copied(now.carry)
                    self.kept = Kept(arrays, totals, now.step)
                self.kept.add(batches, num)
            try:
                carry, info = self._run(now.carry, now.step, batches, num)
            except Exception as error:
                self._recover(error, (batches, num))
            else:
                self._now = Now(carry, now.step + num)
                return info
        # Outside of the `except`: the user's error keeps a context of its own.
        self.raise_failed()
        raise AssertionError("an error was noted")

    def _ready(self):
        """What is now, to be advanced."""
        if not self.program.donates:
            self.wait()  # so that one state and its next are all there is
            self.kept = None
        now = self._sound()
        arrays, number, totals = now.carry
        if totals is None:
            totals = self.program.no_totals()
            now = self._now = Now((arrays, number, totals), now.step)
        if not self.program.donates:
            self.kept = Kept(arrays, totals, now.step)
        return now

    def again(
        self, arrays: PyTree, step: int, batches: PyTree, num: int
    ) -> tuple[PyTree, Metrics]:
        """Makes steps once more, from arrays that stay as they are."""
        number = jnp.asarray(step, jnp.int32)
        if self.program.shardings is not None:
            number = self._layout.place(number, self._layout.everywhere)
        carry = copied(arrays), number, self.program.no_totals()
        carry, info = self._run(carry, step, batches, num)
        return carry[0], info

    def go_back(self, step: int) -> None:
        """Makes the state before an earlier step again, from the kept copy on."""
        with HELD, self._lock:
            assert self.kept is not None
            self._now = Now(self._replay(self.kept, step), step)
            self.kept.cut(step)

    def _sound(self) -> Now:
        """What is now; made again if a dispatch that never returned has consumed it."""
        kept, now = self.kept, self._now
        if kept is not None and kept.step + kept.num_steps != now.step:
            kept.cut(now.step)  # noted, but never made
        if now.carry[1].is_deleted():
            self.go_back(now.step)
        return self._now

    def _recover(self, error, failing=None):
        """Finds the last step that can be made, and goes back to the state after it.

        **Arguments:**

        - `error`: of the program.
        - `failing`: the work whose call raised it, where one did. Without, it is an
            error of work that was handed over before.
        """
        with HELD, self._lock, OWN_ERRORS:
            self._failed = OWN_ERRORS.of(error)
            kept, now = self.kept, self._now
            if kept is None:
                return
            # Perhaps there is no memory now: whoever reads the state tries again.
            with contextlib.suppress(Exception):
                self._now = self._last_good(kept, now.step, failing)
            kept.cut(self._now.step)

    def _last_good(self, kept, step, failing):
        try:
            before = self._replay(kept, step)
        except Exception:
            before, step, failing = self._first_failing(kept)
        num, self.rescued = 0, None
        if failing is not None:
            before, num = self._longest(before, step, *failing)
        return Now(before, step + num)

    def _first_failing(self, kept):
        """The carry before the first work that fails, its step, and the work."""
        carry, step = self._replay(kept, kept.step), kept.step
        for batches, num in kept.work:
            if not num:
                carry = self._reset(carry)
                continue
            try:
                after, _ = self._run(copied(carry), step, batches, num)
                carry = jax.block_until_ready(after)
            except Exception:
                return carry, step, (batches, num)
            step += num
        return carry, step, None

    def _longest(self, before, step, batches, num):
        """The carry after as many steps of some work as can be made, and their number.

        Where all of them can, the error was one of the moment, and none is made.
        """
        carry, fine, bad = before, 0, num + 1
        while bad - fine > 1:
            part = num if bad > num else (fine + bad) // 2
            try:
                after, info = self._run(copied(before), step, batches, part)
                jax.block_until_ready(after)
            except Exception:
                bad = part
                continue
            if part == num:
                return before, 0
            carry, fine, self.rescued = after, part, (info, part)
        return carry, fine

    def _replay(self, kept, step):
        """The carry before a step, from the kept copy on. This waits for the device."""
        number = jnp.asarray(kept.step, jnp.int32)
        if self.program.shardings is not None:
            number = self._layout.place(number, self._layout.everywhere)
        carry, at = (copied(kept.arrays), number, copied(kept.totals)), kept.step
        for batches, num in kept.work:
            if not num:
                carry = self._reset(carry)
                continue
            part = min(num, step - at)
            if not part:
                break
            carry, _ = self._run(carry, at, batches, part)
            at += part
            if part < num:
                break
        return jax.block_until_ready(carry)

    def _reset(self, carry):
        arrays, number, _ = carry
        return arrays, number, self.program.no_totals()

    def _run(self, carry, step, batches, num):
        """The carry and the metrics after steps, the first of which has a number."""
        if isinstance(batches, Stack):
            stacked = self._placed(batches)
            carry, info = self.program.many(carry, self.key, stacked, num)
        else:
            batch = self._layout.put(batches)
            carry, info = self.program.one(carry, self.key, batch)
        if self.program.checked:
            # What a check inside the program would have raised on one device.
            check_metrics(jax.device_get(info), num, step + num)
        return carry, info

    def _placed(self, stack):
        if not isinstance(stack, RowStack):
            return self._layout.put(stack.batches, 1)
        rows, mask = self._layout.put((stack.rows.astype(np.int32), stack.mask), 1)
        return self.program.gather(self._place_table(stack.table), rows, mask)

    def _place_table(self, table):
        if self._layout.is_single:
            return table
        if self._table[0] is not table:
            self._table = table, jax.device_put(table, self._layout.everywhere)
        return self._table[1]
