"""Batches handed to a program, as many in one dispatch as its size allows."""

import functools
import time
from collections.abc import Callable, Iterable

import jax
from jaxtyping import PyTree

from .._training.batch import RowStack, Stack, unaliased
from .dispatch_size import DispatchSize, num_bytes
from .live_state import LiveState
from .program import Metrics, Program
from .stacking import shape_of, stack_into


class Dispatcher:
    """Dispatches of batches, the first of which are timed to choose their size.

    **Arguments:**

    - `live`: the state that is advanced.
    - `size`: how many steps a dispatch may hold.
    - `before`: called with the number of steps before each dispatch.
    """

    def __init__(
        self, live: LiveState, size: DispatchSize, before: Callable[[int], None]
    ):
        self._live = live
        self.size = size
        self._before = before
        self._traced: Program | None = None

    @property
    def slots(self) -> int:
        """Length of the leading axis of a stack: the steps it may hold, at least two.

        Of a stack of one XLA makes no loop, and the step may round otherwise.
        """
        return max(2, self.size.steps)

    def run_length(self, batches: list[PyTree]) -> int:
        """Return how many batches from the first on are alike and fit one dispatch."""
        if not self._live.program.fused:
            return 1
        shape = shape_of(batches[0])
        others = (i for i, b in enumerate(batches) if shape_of(b) != shape)
        return min(next(others, len(batches)), self.size.steps)

    def takes(self, stack: Stack) -> bool:
        """Return whether a stack can be dispatched as it is."""
        timing = self.size.trials > 0
        if not self._live.program.fused or timing or stack.capacity != self.slots:
            return False
        if isinstance(stack, RowStack):
            return stack.rows.shape[1] % self._live.program.layout.num_row_parts == 0
        return True

    def train(
        self, batches: Iterable[PyTree] | Stack, parts: list[tuple[Metrics, int]]
    ) -> None:
        """Make a step on each batch, in as few dispatches as can hold them.

        **Arguments:**

        - `batches`: the batches, in order.
        - `parts`: gets the metrics and the number of steps of each dispatch when it is
            made, so that those before an error are known.
        """
        ready = self._traced is self._live.program
        if isinstance(batches, Stack):
            if not ready:
                self._trace(batches.at(0))
            if self.takes(batches):
                parts.append((self.stack(batches), batches.num))
                return
            batches = batches.unstack()
        batches = list(batches)
        if batches and not ready:
            self._trace(batches[0])
        while batches:
            num = self.run_length(batches)
            parts.append((self._batches(batches[:num]), num))
            batches = batches[num:]

    def _batches(self, batches):
        """Make a step on each of some batches that are alike, in one dispatch."""
        begin = time.perf_counter()
        if self._live.program.fused:
            # A lone step goes through a loop too: the same body rounds alike, where a
            # bare step may be fused otherwise.
            slots = self.size.slots(len(batches), num_bytes(batches[0]))
            info = self.stack(_stacked(slots, batches, len(batches)))
        else:
            self._before(1)
            info = self._live.advance(unaliased(batches[0]), 1)
        if self.size.trials > 0:
            self._time(batches[0], info, begin)
        return info

    def stack(self, stack: Stack) -> Metrics:
        """Make a step on each batch of a stack, in one dispatch."""
        self._before(stack.num)
        return self._live.advance(stack, stack.num)

    def _trace(self, batch):
        """Trace the program, and take over the size that an earlier run of it chose."""
        self._live.program.trace(self._live.arrays, self._live.key, batch)
        self._live.match_totals()
        self._traced = self._live.program
        settled = self._live.program.settled.get(num_bytes(batch))
        if self.size.trials > 0 and settled is not None:
            self.size.settle(settled)

    def _time(self, batch, info, begin):
        """Time a dispatch that has been made, and choose when enough are timed."""
        program = self._live.program
        jax.block_until_ready(info)
        seconds, idle = time.perf_counter() - begin, 0.0
        if program.fused:
            # A dispatch of no steps costs all that does not grow with their number.
            begin = time.perf_counter()
            slots = self.size.slots(1, num_bytes(batch))
            jax.block_until_ready(self.stack(_stacked(slots, [batch], 0)))
            idle = time.perf_counter() - begin
        self.size.add(seconds, idle)
        if not self.size.trials:
            steps = program.layout.agree(self.size.choose(num_bytes(batch)))
            self.size.settle(steps)
            program.settled[num_bytes(batch)] = steps


def _stacked(slots, batches, num):
    return Stack(jax.tree.map(functools.partial(stack_into, slots), *batches), num)
