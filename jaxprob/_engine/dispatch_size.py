"""The number of steps in a dispatch."""

import math
from typing import Literal

import jax
import numpy as np
from jaxtyping import PyTree

from .._jaxpr.convolutions import has_convolution

MAX_STEPS = 512
MAX_BYTES = 2**26
TRIALS = 5
SMALL = 2**20  # bytes of a stack that is made for a single step too
SECONDS = 0.08  # of work in a dispatch: a Trainer's hooks, a millisecond, vanish in it


class DispatchSize:
    """Number of steps in a dispatch: as given, or chosen once a few are timed.

    **Arguments:**

    - `steps`: a number, or `"auto"`.
    """

    def __init__(self, steps: int | Literal["auto"]):
        auto = steps == "auto"
        self._auto = auto
        self.chosen = 1 if auto else int(steps)
        self.trials = TRIALS if auto else 0
        self.longest = math.inf
        self._times: list[float] = []
        self._idle: list[float] = []

    @property
    def steps(self) -> int:
        """The number chosen, but no power of two more than the `longest` needs.

        Epochs of lengths that change a little then change no program.
        """
        return self._up_to(self.chosen) if self._auto else self.chosen

    def slots(self, num: int, nbytes: int) -> int:
        """Return the length of a stack that holds so many batches of a size.

        As long as every other, so that one program serves all; but for a lone batch no
        stack is made that takes a while to copy. Of a stack of one XLA makes no loop,
        and the step may round otherwise than in one.
        """
        most = self._up_to(MAX_STEPS) if self.trials else self.steps
        if num == 1 and most * nbytes > SMALL:
            return 2
        return max(2, most)

    def add(self, seconds: float, idle: float) -> None:
        """Add the time of one step, and that of a dispatch of none."""
        self._times.append(seconds)
        self._idle.append(idle)
        self.trials -= 1

    def choose(self, nbytes: int) -> int:
        """Return the number of steps by the times, for batches of a size."""
        # The first one compiled; the fastest of the others is the undisturbed one.
        step = min(self._times[1:])
        step = max(step - min(self._idle), 0.01 * step)
        return choose_capacity(step, nbytes)

    def settle(self, steps: int) -> None:
        """Fix the choice, on which all processes agree."""
        self.chosen = steps
        self.trials = 0

    def _up_to(self, most):
        if self.longest >= most:
            return most
        return 1 << math.ceil(math.log2(self.longest))


def choose_capacity(seconds: float, nbytes: int) -> int:
    """Return the largest power of two of steps within time, memory and count."""
    most = min(MAX_STEPS, SECONDS / max(seconds, 1e-9), MAX_BYTES / max(nbytes, 1))
    return 1 << int(math.log2(max(1.0, most)))


def can_fuse(jaxpr) -> bool:
    """Return whether a loop runs a step as fast as a single call does.

    On CPU a convolution inside any XLA loop leaves the fast library call for naive code
    and rounds otherwise (measured with jax 0.10.2, 32 channels of 28x28, batch 64: 40
    ms a step outside, 600 inside).
    """
    return jax.default_backend() != "cpu" or not has_convolution(jaxpr)


def num_bytes(batch: PyTree) -> int:
    """Return the bytes that a batch takes."""
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
