"""Steps made once, or made again from a copy that was snapshot."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._jaxpr.host_errors import check_metrics
from .._jaxpr.own_errors import is_of_memory
from .._training.batch import RowStack, Stack
from .._types import PRNGKey
from .last_good import Snapshot
from .program import Carry, Metrics, Program
from .stacking import copied


class Runner:
    """Execution of one program: forwards, and again to any step since a kept copy.

    The same program makes the same steps with the same bits.

    **Arguments:**

    - `program`: the program that makes the steps.
    - `key`: the key of the whole run.
    """

    def __init__(self, program: Program, key: PRNGKey):
        self.program = program
        self.key = key
        self._table: tuple[Any, Any] = (None, None)  # as given, and where it is used

    def run(
        self, carry: Carry, step: int, batches: PyTree, num: int
    ) -> tuple[Carry, Metrics]:
        """Return the carry and the metrics after steps, which consume the carry.

        **Arguments:**

        - `carry`: the carry before them.
        - `step`: number of the first one.
        - `batches`: a `Stack` of batches, of which `num` count, or one batch.
        """
        layout = self.program.layout
        if isinstance(batches, Stack):
            stack = self._placed(batches)
            carry, info = self.program.many(carry, self.key, stack, num)
        else:
            carry, info = self.program.one(carry, self.key, layout.put(batches))
        if self.program.checked:
            # A check inside the program would have raised this on one device.
            check_metrics(jax.device_get(info), num, step + num)
        return carry, info

    def again(
        self, arrays: PyTree, step: int, batches: PyTree, num: int
    ) -> tuple[PyTree, Metrics]:
        """Make steps from arrays of a state, which stay as they are."""
        carry = copied(arrays), self._number(step), self.program.no_totals()
        carry, info = self.run(carry, step, batches, num)
        return carry[0], info

    def replay(self, snapshot: Snapshot, step: int) -> Carry:
        """Return the carry before a step, from a kept copy. It waits for the device."""
        carry = (
            copied(snapshot.arrays),
            self._number(snapshot.step),
            copied(snapshot.totals),
        )
        reached = snapshot.step
        for batches, num in snapshot.work:
            if not num:
                carry = self._reset(carry)
                continue
            part = min(num, step - reached)
            if not part:
                break
            carry, _ = self.run(carry, reached, batches, part)
            reached += part
            if part < num:
                break
        return jax.block_until_ready(carry)

    def last_good(
        self, snapshot: Snapshot, step: int, failing: tuple[PyTree, int] | None
    ) -> tuple[Carry, int, tuple[Metrics, int] | None]:
        """Return the carry after the last step that can be made, and the next step.

        **Arguments:**

        - `snapshot`: the kept copy, and the work up to `step`.
        - `failing`: the work after `step` whose call raised an error, if a call did.

        **Returns:** also the metrics of the steps of `failing` that were made.

        **Raises:** an error for want of memory, when no step can be made.
        """
        try:
            before = self.replay(snapshot, step)
        except Exception as error:
            if is_of_memory(error):
                raise  # not even a step that was made before can be made now
            before, step, failing = self.first_failing(snapshot)
        if failing is None:
            return before, step, None
        carry, num, rescued = self.longest(before, step, *failing)
        return carry, step + num, rescued

    def first_failing(
        self, snapshot: Snapshot
    ) -> tuple[Carry, int, tuple[PyTree, int] | None]:
        """Return the carry before the first kept work that fails, its step, the work.

        Where no work fails, it is the carry after all of it, and `None`.
        """
        carry, step = self.replay(snapshot, snapshot.step), snapshot.step
        for batches, num in snapshot.work:
            if not num:
                carry = self._reset(carry)
                continue
            try:
                after, _ = self.run(copied(carry), step, batches, num)
                carry = jax.block_until_ready(after)
            except Exception:
                return carry, step, (batches, num)
            step += num
        return carry, step, None

    def longest(
        self, before: Carry, step: int, batches: PyTree, num: int
    ) -> tuple[Carry, int, tuple[Metrics, int] | None]:
        """Make as many steps of some work as can be made, found by bisection.

        Where all of them can, the error was one of the moment, and none is made.

        **Returns:** the carry after them, their number, and their metrics with it.
        """
        carry, fine, bad, rescued = before, 0, num + 1, None
        while bad - fine > 1:
            part = num if bad > num else (fine + bad) // 2
            try:
                after, info = self.run(copied(before), step, batches, part)
                jax.block_until_ready(after)
            except Exception:
                bad = part
                continue
            if part == num:
                return before, 0, None
            carry, fine, rescued = after, part, (info, part)
        return carry, fine, rescued

    def _number(self, step):
        """The number of a step on the program's devices."""
        number = jnp.asarray(step, jnp.int32)
        if self.program.shardings is None:
            return number
        layout = self.program.layout
        return layout.place(number, layout.everywhere)

    def _reset(self, carry):
        arrays, number, _ = carry
        return arrays, number, self.program.no_totals()

    def _placed(self, stack):
        layout = self.program.layout
        if not isinstance(stack, RowStack):
            return layout.put(stack.batches, 1)
        rows, mask = layout.put((stack.rows.astype(np.int32), stack.mask), 1)
        return self.program.gather(self._place_table(stack.table), rows, mask)

    def _place_table(self, table):
        layout = self.program.layout
        if layout.is_single:
            return table
        if self._table[0] is not table:
            self._table = table, jax.device_put(table, layout.everywhere)
        return self._table[1]
