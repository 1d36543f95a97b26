"""A copy of a good state, and the way from it to any later step.

A step writes over the state it came from, also the step that fails or that gives the
first NaN, and looking at each step would make the device wait for the host. So a run
keeps a copy of a state that was looked at, and the batches since. The same program
makes the same steps again from the copy, with the same bits: up to the last one before
an error, or, where a later look finds NaN, up to the first step that gave one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from .._training.batch import RowStack, Stack
from .._training.non_finite import (
    NonFiniteError,
    finite_leaves,
    not_finite,
    paths_where,
)
from .._types import State
from .totals import Totals

MAX_BYTES = 2**28  # of batches that are held
MAX_SECONDS = 20.0  # of work that is held, so that it is soon made again


class Snapshot:
    """A copy of a state, and the work done since.

    **Arguments:**

    - `arrays`, `totals`: of the state, in buffers that nothing consumes.
    - `step`: the number of the next step.
    """

    def __init__(self, arrays: PyTree, totals: Totals, step: int):
        self.arrays = arrays
        self.totals = totals
        self.step = step
        self.work: list[tuple[PyTree, int]] = []
        self.num_steps = 0
        self._num_bytes = 0
        self._since: float | None = None

    def is_full(self, num: int, most: int) -> bool:
        """Return whether so many steps more are too many, or too long to make again.

        Processes that share a run read different clocks and must agree.
        """
        if not self.num_steps:
            return False
        if self.num_steps + num > most or self._num_bytes > MAX_BYTES:
            return True
        seconds = time.monotonic() - (self._since or time.monotonic())
        return seconds > MAX_SECONDS and jax.process_count() == 1

    def add(self, batches: PyTree, num: int) -> None:
        """Note steps about to be made: a `Stack` of batches, or a batch alone."""
        if self.num_steps and self._since is None:
            self._since = time.monotonic()  # the first dispatch may compile
        self.work.append((batches, num))
        self.num_steps += num
        self._num_bytes += _num_bytes(batches)

    def add_reset(self) -> None:
        """Note that the sums of the metrics begin anew."""
        self.work.append((None, 0))

    def cut(self, step: int) -> None:
        """Forget the work from a step on."""
        work, self.work = self.work, []
        at = self.step
        for batches, num in work:
            if num and at == step:
                break
            part = min(num, step - at)
            self.work.append((batches, part))
            at += part
            if part < num:
                break
        self.num_steps = step - self.step

    def broken(self, arrays: PyTree) -> list[str]:
        """Return paths of leaves that became not finite. This waits for the device.

        Some never are: an optimiser may begin with an infinite best loss.
        """
        if not self.num_steps:
            return []
        finite = np.asarray(finite_leaves(arrays))
        if finite.all():
            return []
        return paths_where(arrays, np.asarray(finite_leaves(self.arrays)) & ~finite)


@dataclass(frozen=True)
class Break:
    """The first step that broke a state.

    **Arguments:**

    - `arrays`: of the state before it.
    - `step`, `batch`, `loss`: its number, what it was made on, and its loss.
    - `leaves`: of the state, that it broke.
    - `check_error`: the error that the learner's check of data raises for the batch.
    """

    arrays: PyTree
    step: int
    batch: PyTree
    loss: float
    leaves: list[str]
    check_error: str | None = None

    def message(self, gradient: PyTree | None) -> str:
        """Return an error message, given the gradient of that step."""
        where = [] if gradient is None else not_finite(gradient)
        shown = _listing(where or self.leaves)
        what = f"the gradient is not finite at {shown}"
        if not where:
            finite = "" if gradient is None else "its gradient is finite, and "
            what = f"{finite}the update left {shown} not finite"
        loss = f"its loss is {self.loss:.6g}"
        what = f"step {self.step} broke the run: {loss}, and {what}"
        if self.check_error is not None:
            return f"{what}. Of its batch: {self.check_error}"
        return (
            f"{what}. Lower the learning rate, clip the gradient "
            "(optax.clip_by_global_norm), and look at the rows of that batch; "
            "jax.config.update('jax_debug_nans', True) shows the operation"
        )

    def error(self, state: State, gradient: PyTree | None) -> NonFiniteError:
        """Return the error to raise, with the whole state before that step."""
        where = [] if gradient is None else not_finite(gradient)
        return NonFiniteError(
            f"{self.message(gradient)}. The state before that step is error.state",
            state=state,
            step=self.step,
            leaves=where or self.leaves,
        )


def first_break(
    snapshot: Snapshot, run: Callable[[PyTree, int, PyTree, int], tuple[PyTree, Any]]
) -> "Break":
    """Return the first step after a kept state that breaks it.

    **Arguments:**

    - `snapshot`: the state, and the steps, one of which does.
    - `run`: `run(arrays, step, batches, num) -> (arrays, info)` makes the first `num`
        of some steps, the first of which has the number `step`.
    """
    arrays, step = snapshot.arrays, snapshot.step
    for batches, num in snapshot.work:
        if not num:
            continue
        after, info = run(arrays, step, batches, num)
        broken = snapshot.broken(after)
        if not broken:
            arrays, step = after, step + num
            continue
        good, fine, bad = arrays, 0, num
        while bad - fine > 1:
            middle = (fine + bad) // 2
            after, part = run(arrays, step, batches, middle)
            found = snapshot.broken(after)
            if found:
                bad, info, broken = middle, part, found
            else:
                good, fine = after, middle
        batch = batches.at(fine) if isinstance(batches, Stack) else batches
        loss = float(np.atleast_1d(info["loss"])[fine])
        return Break(good, step + fine, batch, loss, broken)
    raise AssertionError("the same steps gave other bits")


def _num_bytes(batches):
    if isinstance(batches, RowStack):
        return batches.rows.nbytes
    leaves = batches.batches if isinstance(batches, Stack) else batches
    return sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))


def _listing(names):
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
